// Shared/Schema
