// Shared/Database
