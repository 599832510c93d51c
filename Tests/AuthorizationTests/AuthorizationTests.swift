// AuthorizationTests
