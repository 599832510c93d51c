// Services/Network/NetworkService
