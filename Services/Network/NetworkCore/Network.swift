// Services/Network/NetworkCore
