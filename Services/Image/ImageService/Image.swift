// Services/Image/ImageService
