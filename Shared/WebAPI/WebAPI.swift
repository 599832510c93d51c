// Shared/WebAPI
