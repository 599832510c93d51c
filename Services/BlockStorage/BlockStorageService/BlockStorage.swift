// Services/BlockStorage/BlockStorageService
