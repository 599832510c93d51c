// Services/Identity/IdentityCore
