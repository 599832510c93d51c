// BlockStorageTests
