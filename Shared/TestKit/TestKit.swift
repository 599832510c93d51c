// Shared/Testing
