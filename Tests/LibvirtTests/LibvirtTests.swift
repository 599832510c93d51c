// LibvirtTests
