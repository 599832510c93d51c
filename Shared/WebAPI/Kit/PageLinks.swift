package import JSON
package import Kernel

/// How a service links to the neighbouring pages of a list.
package struct PageLinks: Sendable {
    /// A page of a list for its response.
    package struct Page {
        /// `networks`
        package let collection: String
        package let first: String?
        package let last: String?
        /// Whether rows follow, and whether rows precede.
        package let hasNext: Bool
        package let hasPrevious: Bool
        /// Whether the page has as many rows as the client requested.
        package let isFull: Bool
        /// Whether the service truncated the list, and not the client.
        package let isCut: Bool
    }

    /// Whether `page_reverse` requests the page before the marker.
    package let isReversible: Bool
    package let write: @Sendable (inout JSONWriter, Page, RequestContext) -> Void

    package init(isReversible: Bool = false, _ write: @escaping @Sendable (inout JSONWriter, Page, RequestContext) -> Void) {
        self.isReversible = isReversible
        self.write = write
    }

    /// No links.
    package static let none = PageLinks { _, _, _ in }

    /// `"servers_links": [{"rel": "next", "href": "…"}]`
    package static let next = PageLinks { writer, page, context in
        guard page.hasNext, let last = page.last else { return }
        link(&writer, page.collection + "_links", context.nextLink(marker: last))
    }

    /// The same from a version on, and no links before.
    package func from(_ version: Microversion) -> PageLinks {
        PageLinks(isReversible: isReversible) { writer, page, context in
            if context.version >= version { write(&writer, page, context) }
        }
    }

    /// The same as in Cinder: a full page has a next link, although the next page may be empty.
    package static let nextWhenFull = PageLinks { writer, page, context in
        guard page.hasNext || page.isFull, let last = page.last else { return }
        link(&writer, page.collection + "_links", context.nextLink(marker: last))
    }

    /// `"networks_links"` with `next` and `previous`, as in Neutron.
    package static let bothWays = PageLinks(isReversible: true) { writer, page, context in
        guard let first = page.first, let last = page.last, page.hasNext || page.hasPrevious else { return }
        writer.arrayField(page.collection + "_links") { list in
            func link(_ rel: String, marker: String, _ isReversed: String?) {
                list.object {
                    $0.field("rel", rel)
                    let path = context.pathAndQuery(marker: marker, replacing: [("page_reverse", isReversed)])
                    $0.field("href", context.publicURL + path)
                }
            }
            if page.hasNext { link("next", marker: last, nil) }
            if page.hasPrevious { link("previous", marker: first, "True") }
        }
    }

    /// `"links": {"next": …, "self": …, "previous": null}`, as in Keystone.
    package static let object = PageLinks { writer, page, context in
        writer.objectField("links") {
            $0.field("next", page.hasNext ? page.last.map { context.nextLink(marker: $0) } : nil)
            $0.field("self", context.selfLink)
            $0.name("previous")
            $0.null()
        }
        if page.isCut { writer.field("truncated", true) }
    }

    /// `"next": "/v2/images?marker=…"`, the schema's path and `first`, as in Glance.
    package static func paths(schema: String) -> PageLinks {
        PageLinks { writer, page, context in
            if page.hasNext, let last = page.last { writer.field("next", context.pathAndQuery(marker: last, path: context.route.path)) }
            writer.field("schema", schema)
            writer.field("first", context.pathAndQuery(marker: nil, path: context.route.path))
        }
    }

    static func link(_ writer: inout JSONWriter, _ name: String, _ href: String) {
        writer.arrayField(name) { list in
            list.object {
                $0.field("rel", "next")
                $0.field("href", href)
            }
        }
    }
}
