// Shared/Messaging
