//! What a Merkle Patricia trie has under a key, by the nodes that lead there from its root.
//!
//! All nodes may be a stranger's, and the root too where no block vouches for it: whatever they are, it takes a
//! bounded time and ends with an answer, and two answers under one root take a collision of keccak256.

use alloy::{
    primitives::{B256, keccak256},
    rlp::Decodable as _,
};
use alloy_trie::{
    EMPTY_ROOT_HASH, Nibbles,
    nodes::{RlpNode, TrieNode},
};

/// Keys are hashes: no path is longer.
const NIBBLES: usize = 64;
/// A branch of sixteen hashes has 532 bytes, and nothing else in these tries is larger.
const LONGEST_NODE: usize = 1024;
/// What stands for an empty trie.
const EMPTY: &[u8] = &[0x80];

/// The nodes do not lead from the root to the key, or not exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// What the trie has under keccak256 of `key`; `None` if nothing is there. A node too many is as bad as one too few.
pub(super) fn find<N: AsRef<[u8]>>(
    root: B256,
    key: &[u8],
    nodes: &[N],
) -> Result<Option<Vec<u8>>, Broken> {
    walk(root, Nibbles::unpack(keccak256(key)), nodes.iter().map(AsRef::as_ref))
}

/// What stands at the end of a path of 64 nibbles.
fn walk<'a>(
    root: B256,
    path: Nibbles,
    mut given: impl ExactSizeIterator<Item = &'a [u8]>,
) -> Result<Option<Vec<u8>>, Broken> {
    if root == EMPTY_ROOT_HASH {
        let is_empty = given.len() <= 1 && given.all(|node| node == EMPTY);
        return if is_empty { Ok(None) } else { Err(Broken) };
    }
    let mut at = 0;
    let mut child = RlpNode::word_rlp(&root);
    let found = loop {
        let node = match child.as_hash() {
            Some(hash) => of_hash(hash, given.next().ok_or(Broken)?)?,
            // A node of less than 32 bytes stands inside its parent.
            None => decode(&child)?,
        };
        let next = match node {
            TrieNode::EmptyRoot => return Err(Broken),
            TrieNode::Leaf(leaf) => {
                if at + leaf.key.len() != NIBBLES {
                    return Err(Broken);
                }
                break (path.slice(at..) == leaf.key).then_some(leaf.value);
            }
            TrieNode::Extension(extension) => {
                let behind = at + extension.key.len();
                if behind >= NIBBLES {
                    return Err(Broken);
                }
                let is_on_path = path.slice(at..behind) == extension.key;
                at = behind;
                is_on_path.then_some(extension.child)
            }
            TrieNode::Branch(branch) => {
                let Some(way) = path.get(at) else { return Err(Broken) };
                at += 1;
                let before = (0..way).filter(|other| branch.state_mask.is_bit_set(*other)).count();
                let is_there = branch.state_mask.is_bit_set(way);
                branch.stack.into_iter().nth(before).filter(|_| is_there)
            }
        };
        match next {
            Some(next) => child = next,
            None => break None,
        }
    };
    if given.next().is_some() { Err(Broken) } else { Ok(found) }
}

fn of_hash(hash: B256, node: &[u8]) -> Result<TrieNode, Broken> {
    if node.len() > LONGEST_NODE || keccak256(node) != hash {
        return Err(Broken);
    }
    decode(node)
}

fn decode(mut node: &[u8]) -> Result<TrieNode, Broken> {
    let decoded = TrieNode::decode(&mut node).map_err(|_| Broken)?;
    if node.is_empty() { Ok(decoded) } else { Err(Broken) }
}

#[cfg(test)]
pub(in crate::chain::evm) mod tests {
    use std::collections::BTreeMap;

    use alloy_trie::{
        HashBuilder,
        nodes::{ExtensionNode, LeafNode},
        proof::ProofRetainer,
    };
    use proptest::prelude::*;

    use super::*;

    /// The root of a trie with these values at these paths, and the nodes that lead to one of them.
    fn built(values: &BTreeMap<Nibbles, Vec<u8>>, path: Nibbles) -> (B256, Vec<Vec<u8>>) {
        let mut trie = HashBuilder::default().with_proof_retainer(ProofRetainer::new(vec![path]));
        for (path, value) in values {
            trie.add_leaf(*path, value);
        }
        let root = trie.root();
        let nodes = trie.take_proof_nodes().into_nodes_sorted().into_iter();
        let nodes = nodes.map(|(_, node)| node.to_vec()).enumerate();
        // What stands inside its parent is not told by itself.
        (
            root,
            nodes.filter(|(n, node)| *n == 0 || node.len() >= 32).map(|(_, node)| node).collect(),
        )
    }

    /// The same of keys that are hashed, as those of a state are.
    pub fn trie(values: &[(Vec<u8>, Vec<u8>)], key: &[u8]) -> (B256, Vec<Vec<u8>>) {
        let path = |key: &[u8]| Nibbles::unpack(keccak256(key));
        let values = values.iter().map(|(key, value)| (path(key), value.clone())).collect();
        built(&values, path(key))
    }

    fn led(root: B256, path: Nibbles, nodes: &[Vec<u8>]) -> Result<Option<Vec<u8>>, Broken> {
        walk(root, path, nodes.iter().map(Vec::as_slice))
    }

    /// Paths that have much in common, so that there are extensions and nodes inside nodes.
    fn paths() -> impl Strategy<Value = Nibbles> {
        let prefix = prop_oneof![Just(0_usize), Just(31), Just(29), 0..31_usize];
        let path = |(length, ends): (usize, [u8; 2])| {
            let mut bytes = [0x5a; 32];
            for (n, byte) in bytes.iter_mut().enumerate().skip(length) {
                *byte = ends[n % 2];
            }
            Nibbles::unpack(bytes)
        };
        (prefix, any::<[u8; 2]>()).prop_map(path)
    }

    fn values() -> impl Strategy<Value = BTreeMap<Nibbles, Vec<u8>>> {
        let value = prop_oneof![
            proptest::collection::vec(any::<u8>(), 1..3),
            proptest::collection::vec(any::<u8>(), 60..110),
        ];
        proptest::collection::btree_map(paths(), value, 0..40)
    }

    proptest! {
        #[test]
        fn a_trie_has_what_was_put_into_it_and_nothing_else(values in values(), other in paths()) {
            let known = values.keys().copied();
            for path in known.chain([other]) {
                let (root, nodes) = built(&values, path);
                prop_assert_eq!(led(root, path, &nodes), Ok(values.get(&path).cloned()));
            }
        }

        #[test]
        fn nodes_that_lead_elsewhere_lead_nowhere(
            values in values(), other in paths(), node: prop::sample::Index, byte: prop::sample::Index,
            flip in 1_u8..=255,
        ) {
            let known: Vec<Nibbles> = values.keys().copied().chain([other]).collect();
            let path = known[node.index(known.len())];
            let (root, nodes) = built(&values, path);
            let mut more = nodes.clone();
            more.push(nodes.first().cloned().unwrap_or_else(|| EMPTY.to_vec()));
            more.push(EMPTY.to_vec());
            prop_assert_eq!(led(root, path, &more), Err(Broken), "nodes too many");
            let mut bad_root = root;
            bad_root.0[byte.index(32)] ^= flip;
            prop_assert_eq!(led(bad_root, path, &nodes), Err(Broken), "another root");
            if nodes.is_empty() {
                return Ok(());
            }
            let place = node.index(nodes.len());
            let mut fewer = nodes.clone();
            fewer.remove(place);
            if root != EMPTY_ROOT_HASH {
                prop_assert_eq!(led(root, path, &fewer), Err(Broken), "a node too few");
            }
            let mut changed = nodes;
            let at = byte.index(changed[place].len());
            changed[place][at] ^= flip;
            prop_assert_eq!(led(root, path, &changed), Err(Broken), "another byte");
        }

        #[test]
        fn whoever_makes_up_a_whole_trie_gets_an_answer_and_no_more(
            keys in proptest::collection::vec(proptest::collection::vec(0_u8..16, 0..64), 0..80),
            path: [u8; 32],
        ) {
            // One extension inside the other, together longer than any path.
            let mut child = RlpNode::word_rlp(&B256::repeat_byte(1));
            let mut nodes = Vec::new();
            for key in keys {
                let mut node = Vec::new();
                let extension = ExtensionNode::new(Nibbles::from_nibbles(key), child);
                child = TrieNode::Extension(extension).rlp(&mut node);
                nodes.insert(0, node);
            }
            let root = child.as_hash().unwrap_or_default();
            let _ = led(root, Nibbles::unpack(path), &nodes);
        }

        #[test]
        fn any_bytes_for_nodes_get_an_answer(
            nodes in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 1..4),
            path: [u8; 32],
        ) {
            let _ = led(keccak256(&nodes[0]), Nibbles::unpack(path), &nodes);
        }
    }

    #[test]
    fn a_node_larger_than_any_is_not_even_hashed() {
        for (length, is_found) in [(900, true), (2_000, false)] {
            let path = Nibbles::unpack([0x5a; 32]);
            let mut node = Vec::new();
            let leaf = TrieNode::Leaf(LeafNode::new(path, vec![7; length]));
            let root = leaf.rlp(&mut node).as_hash().expect("a hash");
            assert_eq!(led(root, path, &[node]).is_ok(), is_found, "{length} bytes");
        }
    }

    #[test]
    fn an_extension_that_is_longer_than_the_path_leads_nowhere() {
        let (mut whole, mut half) = (Vec::new(), Vec::new());
        let child = RlpNode::word_rlp(&B256::repeat_byte(1));
        let inner = ExtensionNode::new(Nibbles::unpack([0x5a; 32]), child);
        let inner = TrieNode::Extension(inner).rlp(&mut whole);
        let outer = ExtensionNode::new(Nibbles::unpack([0x5a; 16]), inner);
        let outer = TrieNode::Extension(outer).rlp(&mut half);
        let root = outer.as_hash().expect("a hash");
        assert_eq!(led(root, Nibbles::unpack([0x5a; 32]), &[half, whole]), Err(Broken));
    }
}
