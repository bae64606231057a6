//! Packets of one length that go through the kernel in one piece, which cuts them apart again just
//! before they arrive (UDP_SEGMENT). A load that sends them one by one does as much of the kernel's
//! work as the tracker does, and is no faster: with trains the floor was seen to answer a sixth more.
#![allow(unsafe_code)]

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use libc::{c_int, c_void};

/// Packets of one train; older kernels take no more.
pub const TRAIN: usize = 64;

/// Has the kernel cut what that socket sends into packets of `length` bytes; 0 for not at all.
///
/// # Errors
/// The system does not know how.
pub fn cut_into(socket: &UdpSocket, length: usize) -> io::Result<()> {
    let length = length as c_int;
    // SAFETY: `length` is as long as is said, and is only read during the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw const length).cast::<c_void>(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
