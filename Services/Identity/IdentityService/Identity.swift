// Services/Identity/IdentityService
