// Shared/Client
