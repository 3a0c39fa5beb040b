//! How much of a stranger's document is read.

/// Bounds of every parser of this crate. Beyond one, [`crate::Error::TooLarge`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Octets of the CPIM headers and the inner MIME headers together (CPM-FACTS §3.8: "e.g. 16 KiB").
    pub cpim_head_octets_max: usize,
    /// CPIM headers, and inner MIME headers, each.
    pub cpim_headers_max: usize,
    /// Octets of one XML document.
    pub xml_octets_max: usize,
    /// Nesting of XML elements (CPM-FACTS §2.26).
    pub xml_depth_max: usize,
    /// Nodes of one XML document.
    pub xml_nodes_max: u32,
    /// Attributes of one XML element, namespace declarations among them.
    pub xml_attributes_max: usize,
    /// Entries of a resource list, users of a conference document.
    pub entries_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            cpim_head_octets_max: 16 * 1024,
            cpim_headers_max: 64,
            xml_octets_max: 256 * 1024,
            xml_depth_max: 64,
            xml_nodes_max: 32 * 1024,
            xml_attributes_max: 64,
            entries_max: 1000,
        }
    }
}
