//! An instance lies on slices of memory next to each other, at places that its profile has: whether a layout fits is a puzzle of a few
//! pieces (NVIDIA, MIG User Guide, "Partitioning").

use nvml_wrapper_sys::bindings::nvmlGpuInstancePlacement_t;

/// Slices of memory: the first, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The first slice, from 0.
    pub start: u32,
    /// How many.
    pub size: u32,
}

impl Placement {
    fn meets(self, other: Self) -> bool {
        self.start < other.start.saturating_add(other.size) && other.start < self.start.saturating_add(self.size)
    }
}

impl From<nvmlGpuInstancePlacement_t> for Placement {
    fn from(placement: nvmlGpuInstancePlacement_t) -> Self {
        Self { start: placement.start, size: placement.size }
    }
}

impl From<Placement> for nvmlGpuInstancePlacement_t {
    fn from(placement: Placement) -> Self {
        Self { start: placement.start, size: placement.size }
    }
}

/// A place for each of the pieces, given the places that each could have, beside what is `taken`; `None` where they do not all fit.
/// Big pieces first, since they have the fewest places.
pub fn place(pieces: &[&[Placement]], taken: &[Placement]) -> Option<Vec<Placement>> {
    let Some((piece, others)) = pieces.split_first() else { return Some(Vec::new()) };
    piece.iter().filter(|placement| !taken.iter().any(|taken| placement.meets(*taken))).find_map(|placement| {
        let taken: Vec<Placement> = taken.iter().copied().chain([*placement]).collect();
        let rest = place(others, &taken)?;
        Some([*placement].into_iter().chain(rest).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at<const N: usize>(size: u32, starts: [u32; N]) -> Vec<Placement> {
        starts.into_iter().map(|start| Placement { start, size }).collect()
    }

    /// As an A100 and an H100 have them (NVIDIA, MIG User Guide, "MIG Profiles").
    fn placed(slices: &[u32], taken: &[Placement]) -> Option<Vec<u32>> {
        let of = |slices: &u32| match slices {
            1 => at(1, [0, 1, 2, 3, 4, 5, 6]),
            2 => at(2, [0, 2, 4]),
            3 => at(4, [0, 4]),
            4 => at(4, [0]),
            _ => at(8, [0]),
        };
        let pieces: Vec<Vec<Placement>> = slices.iter().map(of).collect();
        let pieces: Vec<&[Placement]> = pieces.iter().map(Vec::as_slice).collect();
        place(&pieces, taken).map(|placed| placed.iter().map(|placement| placement.start).collect())
    }

    #[test]
    fn what_fits_is_placed_and_what_does_not_is_told() {
        // At 0 the first would leave room for three others only.
        assert_eq!(placed(&[3, 1, 1, 1, 1], &[]), Some(vec![4, 0, 1, 2, 3]));
        assert_eq!(placed(&[4, 3], &[]), Some(vec![0, 4]));
        assert_eq!(placed(&[3, 2, 1, 1], &[]), Some(vec![4, 0, 2, 3]));
        assert_eq!(placed(&[7], &[]), Some(vec![0]));
        assert_eq!(placed(&[1; 7], &[]), Some((0..7).collect()));
        for impossible in [&[4, 4][..], &[7, 1], &[3, 3, 1], &[2, 2, 2, 2], &[1; 8], &[4, 3, 1]] {
            assert_eq!(placed(impossible, &[]), None, "{impossible:?}");
        }
        assert_eq!(placed(&[3], &at(1, [5])), Some(vec![0]));
        assert_eq!(placed(&[3], &at(1, [1, 5])), None);
    }
}
