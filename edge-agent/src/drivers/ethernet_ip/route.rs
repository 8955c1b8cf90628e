//! The way from the controller's Ethernet port to the controller, as text. Pure.

/// Links are addresses where a port is a network.
const LINK_BYTES_MAX: usize = 64;
const BYTES_MAX: usize = 100;
const RULE: &str =
    "must be ports and links, such as \"1,0\" (backplane, slot 0) or \"1,3,2,192.168.1.5,1,0\", or \"none\"";

/// `port,link` pairs as the bytes of a path; none for `none`.
pub(super) fn parse(text: &str) -> Result<Vec<u8>, String> {
    if text.trim() == "none" {
        return Ok(Vec::new());
    }
    let parts: Vec<&str> = text.split([',', '/']).map(str::trim).collect();
    let mut bytes = Vec::new();
    for pair in parts.chunks(2) {
        let [port, link] = pair else { return Err(RULE.into()) };
        let port = port.parse::<u8>().ok().filter(|port| (1..=14).contains(port)).ok_or(RULE)?;
        match link.parse::<u8>() {
            Ok(link) => bytes.extend([port, link]),
            Err(_) => {
                let is_address = link.parse::<std::net::Ipv4Addr>().is_ok();
                let length =
                    u8::try_from(link.len()).ok().filter(|length| usize::from(*length) <= LINK_BYTES_MAX);
                bytes.extend([0x10 | port, length.filter(|_| is_address).ok_or(RULE)?]);
                bytes.extend(link.bytes());
                if link.len() % 2 == 1 {
                    bytes.push(0);
                }
            }
        }
    }
    if bytes.len() > BYTES_MAX { Err(RULE.into()) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_ports_and_links() {
        assert_eq!(parse("1,0"), Ok(vec![1, 0]));
        assert_eq!(parse("none"), Ok(vec![]));
        assert_eq!(parse("1,2,2,10.0.0.9"), Ok([&[1, 2, 0x12, 8][..], b"10.0.0.9"].concat()));
        for wrong in ["", "1", "1,2,3", "0,1", "15,0", "1,256", "2,host", "a,b"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
