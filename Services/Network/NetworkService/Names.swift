import NetworkCore
import WebAPI

// Both modules have a `Route`; here the word means what clients call.
typealias Route = WebAPI.Route
/// A destination and its next hop.
typealias StaticRoute = NetworkCore.Route
