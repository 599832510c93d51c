// Shared/Authorization
