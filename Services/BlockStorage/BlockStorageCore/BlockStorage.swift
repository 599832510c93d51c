// Services/BlockStorage/BlockStorageCore
