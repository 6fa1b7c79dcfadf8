//! What netlink knows of an interface.

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage, LinkXdp};

use super::Error;

/// An interface of this network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its kernel index.
    pub ifindex: u32,
    /// Administratively up.
    pub up: bool,
    /// Kernel id of the XDP program on it.
    pub xdp_program: Option<u32>,
}

/// Looks an interface up by name.
///
/// # Errors
/// [`Error::NoInterface`], [`Error::Netlink`].
pub async fn find(name: &str) -> Result<Interface, Error> {
    let netlink = |source: Box<dyn std::error::Error + Send + Sync>| Error::Netlink { name: name.to_owned(), source };
    let (connection, handle, _) = rtnetlink::new_connection().map_err(|e| netlink(Box::new(e)))?;
    let connection = tokio::spawn(connection);
    let answer = handle.link().get().match_name(name.to_owned()).execute().try_next().await;
    connection.abort();
    match answer {
        Ok(Some(link)) => Ok(describe(name, &link)),
        Ok(None) => Err(Error::NoInterface { name: name.to_owned() }),
        // ENODEV; a name the kernel finds malformed (too long) comes back as ERANGE or EINVAL.
        Err(rtnetlink::Error::NetlinkError(e))
            if [-libc::ENODEV, -libc::ERANGE, -libc::EINVAL].contains(&e.raw_code()) =>
        {
            Err(Error::NoInterface { name: name.to_owned() })
        }
        Err(e) => Err(netlink(Box::new(e))),
    }
}

fn describe(name: &str, link: &LinkMessage) -> Interface {
    let xdp_program = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Xdp(xdp) => xdp.iter().find_map(|x| match x {
            LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => Some(*id),
            _ => None,
        }),
        _ => None,
    });
    Interface {
        name: name.to_owned(),
        ifindex: link.header.index,
        up: link.header.flags.contains(LinkFlags::Up),
        xdp_program,
    }
}

/// The index of the interface with this name in this network namespace.
#[must_use]
pub fn index_of(name: &str) -> Option<u32> {
    let name = std::ffi::CString::new(name).ok()?;
    // SAFETY: a C string that lives through the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => None,
        index => Some(index),
    }
}

/// The name the kernel knows a program by, or "of unknown name".
#[must_use]
pub fn program_name(id: u32) -> String {
    aya::programs::loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(str::to_owned))
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "of unknown name".to_owned())
}
