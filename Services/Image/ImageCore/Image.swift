// Services/Image/ImageCore
