//! The Merkle tree of RFC 6962 over the record lines, grown one leaf at a time in logarithmic space.

use sha2::{Digest as _, Sha256};

use crate::hash::Hash;

/// The roots of the full subtrees that the leaves so far make, largest first: all that is needed to go on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Frontier {
    size: u64,
    roots: Vec<Hash>,
}

impl Frontier {
    /// A frontier read back; `None` unless there is one root for each bit set in `size`.
    pub(crate) fn from_parts(size: u64, roots: Vec<Hash>) -> Option<Self> {
        (roots.len() == size.count_ones() as usize).then_some(Self { size, roots })
    }

    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn roots(&self) -> &[Hash] {
        &self.roots
    }

    /// Adds one record line (without its newline).
    pub(crate) fn push(&mut self, line: &[u8]) {
        let mut carried = leaf(line);
        // Each trailing one bit of the size is a subtree as large as what is carried.
        for _ in 0..self.size.trailing_ones() {
            let left = self.roots.pop().expect("there is one root for each bit set in the size");
            carried = node(&left, &carried);
        }
        self.roots.push(carried);
        self.size += 1;
    }

    /// The root of the tree over all leaves so far; of no leaf at all, the hash of nothing.
    pub(crate) fn root(&self) -> Hash {
        let mut from_smallest = self.roots.iter().rev();
        let Some(smallest) = from_smallest.next() else { return Hash(Sha256::digest([]).into()) };
        from_smallest.fold(*smallest, |right, left| node(left, &right))
    }
}

fn leaf(line: &[u8]) -> Hash {
    Hash(Sha256::new().chain_update([0]).chain_update(line).finalize().into())
}

fn node(left: &Hash, right: &Hash) -> Hash {
    Hash(Sha256::new().chain_update([1]).chain_update(left.0).chain_update(right.0).finalize().into())
}

#[cfg(test)]
mod tests {
    use ct_merkle::mem_backed_tree::MemoryBackedTree;

    use super::*;

    #[test]
    fn the_root_is_that_of_another_implementation_at_every_size() {
        let mut theirs = MemoryBackedTree::<Sha256, Vec<u8>>::new();
        let mut ours = Frontier::default();
        for n in 0..130_u32 {
            assert_eq!(ours.root().0[..], theirs.root().as_bytes()[..], "size {n}");
            let line = format!("line {n}").into_bytes();
            ours.push(&line);
            theirs.push(line);
        }
    }

    #[test]
    fn a_frontier_goes_on_where_it_was_read_back() {
        let mut whole = Frontier::default();
        (0..11_u8).for_each(|n| whole.push(&[n]));
        let mut again = Frontier::from_parts(whole.size(), whole.roots().to_vec()).unwrap();
        whole.push(b"x");
        again.push(b"x");
        assert_eq!(whole.root(), again.root());
        assert_eq!(Frontier::from_parts(11, vec![]), None);
    }
}
