//! The sockets of other programs on Windows, with their owners.

use std::ptr;

use windows_sys::Win32::Foundation::{CloseHandle, ERROR_INSUFFICIENT_BUFFER, NO_ERROR};
use windows_sys::Win32::NetworkManagement::IpHelper::{
    GetExtendedTcpTable, GetExtendedUdpTable, TCP_TABLE_OWNER_PID_LISTENER, UDP_TABLE_OWNER_PID,
};
use windows_sys::Win32::Networking::WinSock::{AF_INET, AF_INET6};
use windows_sys::Win32::System::Threading::{
    OpenProcess, PROCESS_QUERY_LIMITED_INFORMATION, QueryFullProcessImageNameW,
};

use super::socket_tables::{LAYOUTS, Layout, rows, socket};
use crate::model::{Family, ListeningSocket, Protocol};
use crate::sys::Error;

/// Listening TCP sockets and all UDP sockets of the host.
///
/// # Errors
/// If the system does not return a table.
pub(super) fn sockets() -> Result<Vec<ListeningSocket>, Error> {
    let mut sockets = Vec::new();
    for layout in LAYOUTS {
        let table = table(layout).map_err(|code| {
            let error = std::io::Error::from_raw_os_error(i32::try_from(code).unwrap_or(i32::MAX));
            Error::call("list", "the sockets of this host", error)
        })?;
        sockets
            .extend(rows(&table, layout).into_iter().map(|row| socket(row, layout, executable(row.owner))));
    }
    Ok(sockets)
}

/// One table, as the system writes it. It can grow between the two calls, so it is asked for again a few times.
#[expect(unsafe_code, reason = "windows-sys has no safe functions")]
fn table(layout: Layout) -> Result<Vec<u8>, u32> {
    let family = u32::from(match layout.family {
        Family::Ipv4 => AF_INET,
        Family::Ipv6 => AF_INET6,
    });
    // The rows are made of 32-bit numbers.
    let mut buffer: Vec<u32> = Vec::new();
    for _ in 0..8 {
        let mut length = u32::try_from(buffer.len() * 4).unwrap_or(u32::MAX);
        let to = if buffer.is_empty() { ptr::null_mut() } else { buffer.as_mut_ptr().cast() };
        // SAFETY: the function writes at most `length` bytes to `to`, which has so many, and the length to `length`.
        let code = unsafe {
            match layout.protocol {
                Protocol::Tcp => {
                    GetExtendedTcpTable(to, &raw mut length, 1, family, TCP_TABLE_OWNER_PID_LISTENER, 0)
                }
                Protocol::Udp => GetExtendedUdpTable(to, &raw mut length, 1, family, UDP_TABLE_OWNER_PID, 0),
            }
        };
        match code {
            NO_ERROR => return Ok(buffer.iter().flat_map(|number| number.to_ne_bytes()).collect()),
            ERROR_INSUFFICIENT_BUFFER => {
                buffer.resize(usize::try_from(length).unwrap_or(0) / 4 + 64, 0);
            }
            code => return Err(code),
        }
    }
    Err(ERROR_INSUFFICIENT_BUFFER)
}

/// The path of a process's executable. `None` if it has ended or may not be asked.
#[expect(unsafe_code, reason = "windows-sys has no safe functions")]
fn executable(pid: u32) -> Option<String> {
    if pid == 0 {
        return None;
    }
    // SAFETY: no pointers.
    let process = unsafe { OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, 0, pid) };
    if process.is_null() {
        return None;
    }
    let mut name = [0u16; 1024];
    let mut length = 1024;
    // SAFETY: the function writes at most `length` characters to `name`, which has so many, and their number to `length`.
    let answer = unsafe { QueryFullProcessImageNameW(process, 0, name.as_mut_ptr(), &raw mut length) };
    // SAFETY: the handle was opened above and is closed once.
    unsafe { CloseHandle(process) };
    let name = name.get(..usize::try_from(length).ok()?)?;
    (answer != 0).then(|| String::from_utf16_lossy(name))
}
