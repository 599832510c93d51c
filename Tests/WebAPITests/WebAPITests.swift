// WebAPITests
