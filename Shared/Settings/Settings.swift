// Shared/Settings
