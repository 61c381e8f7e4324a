//! Memory for long lists.

/// The least that is worth it: a large page, where pages have 4 KiB.
const LARGE: usize = 2 << 20;

/// Asks the kernel to take the memory of a list in large pages (madvise(2), MADV_HUGEPAGE), which is one fault for 512. Short lists
/// stay as they are, as does everything where the kernel has none.
pub(super) fn in_large_pages<T>(list: &Vec<T>) {
    let bytes = list.capacity().saturating_mul(size_of::<T>());
    let Ok(Some(page)) = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE) else { return };
    let Ok(page) = usize::try_from(page) else { return };
    if bytes < LARGE || !page.is_power_of_two() {
        return;
    }
    // Outwards to whole pages: a mapping that is advised in part becomes two, and then cannot grow in place.
    let before = list.as_ptr().addr() & (page - 1);
    let start = list.as_ptr().cast::<u8>().wrapping_sub(before).cast_mut().cast();
    let length = (before + bytes).next_multiple_of(page);
    #[expect(unsafe_code, reason = "no safe wrapper takes memory that belongs to a list")]
    // SAFETY: MADV_HUGEPAGE changes neither contents nor rights of any page, whosever it is.
    unsafe {
        libc::madvise(start, length, libc::MADV_HUGEPAGE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_keeps_what_is_in_it_and_grows_on() {
        let mut list: Vec<u64> = (0..LARGE as u64).collect();
        in_large_pages(&list);
        in_large_pages(&Vec::<u64>::new());
        list.extend(LARGE as u64..2 * LARGE as u64);
        assert!(list.iter().zip(0..).all(|(one, number)| *one == number));
    }
}
