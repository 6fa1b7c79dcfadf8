//! Where a webhook goes.

use std::str::FromStr;

use hyper::Uri;

/// Why an address cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not an address at all.
    #[error("`{0}` is not an address, use http://HOST[:PORT][/PATH]")]
    Malformed(String),
    /// It wants TLS.
    #[error("https is not spoken here: use http:// to a proxy on this host that encrypts, or the actuator `command`")]
    Https,
    /// Name and password in an address end up in logs.
    #[error("a name or password does not belong into the address, use secret_file")]
    Credentials,
}

/// Where a webhook goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Name or address, an IPv6 one without brackets.
    pub host: String,
    /// TCP port; 80 unless the address says otherwise.
    pub port: u16,
    /// What goes into the header `Host`.
    pub authority: String,
    /// Path and query.
    pub path: String,
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let malformed = || EndpointError::Malformed(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| malformed())?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(EndpointError::Https),
            _ => return Err(malformed()),
        }
        let authority = uri.authority().ok_or_else(malformed)?.as_str();
        if authority.contains('@') {
            return Err(EndpointError::Credentials);
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(malformed)?;
        let port = match authority.strip_prefix(host) {
            Some("") => 80,
            Some(port) => port.strip_prefix(':').and_then(|port| port.parse().ok()).ok_or_else(malformed)?,
            None => return Err(malformed()),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { host, port, authority: authority.to_owned(), path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let of = |text: &str| {
            let Endpoint { host, port, authority, path } = text.parse().unwrap();
            format!("{host} {port} {authority} {path}")
        };
        assert_eq!(of("http://noc"), "noc 80 noc /");
        assert_eq!(of("http://noc:8080/a?b=c"), "noc 8080 noc:8080 /a?b=c");
        assert_eq!(of("http://[::1]:81/"), "::1 81 [::1]:81 /");
    }

    #[test]
    fn what_cannot_be_used() {
        for text in ["", "noc", "/path", "ftp://noc/", "http://", "http:///path", "http://noc:0x/", "http://noc:99999/"]
        {
            assert!(matches!(text.parse::<Endpoint>(), Err(EndpointError::Malformed(_))), "{text}");
        }
        assert_eq!("https://noc/".parse::<Endpoint>(), Err(EndpointError::Https));
        assert_eq!("http://me:secret@noc/".parse::<Endpoint>(), Err(EndpointError::Credentials));
    }
}
