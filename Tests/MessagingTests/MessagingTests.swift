// MessagingTests
