//! Reads one bucket of a bbolt database while etcd writes it, or the last key of one that nobody writes to.
//!
//! bbolt never writes to a page that its last finished transaction reaches: a transaction fills free pages, and ends with the meta page
//! of its turn. So what was read is whole if no transaction ended meanwhile; otherwise it is read again.
//! Source: go.etcd.io/bbolt v1.3 and v1.4, page.go, meta.go, inode.go and bucket.go.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const MAGIC: u32 = 0xED0C_DAED;
const FORMAT: u32 = 2;
/// Bytes of the header of a page, and of an element on a branch or a leaf.
const HEADER_BYTES: usize = 16;
const ELEMENT_BYTES: usize = 16;
const META_BYTES: usize = 64;
const IS_BRANCH: u16 = 0x01;
const IS_LEAF: u16 = 0x02;
const IS_BUCKET: u32 = 0x01;
/// Sizes of pages that are looked for: that of the machine which made the file.
const PAGE_BYTES: [u64; 4] = [4_096, 8_192, 16_384, 65_536];
/// The largest page with what flows over, the most pages, and the deepest tree: far more than etcd's list of members needs.
const PAGE_BYTES_MAX: u64 = 1_024 * 1_024;
const PAGES_MAX: usize = 256;
const DEPTH_MAX: u8 = 8;
/// The longest last key: etcd's revisions have 18 bytes.
const KEY_BYTES_MAX: u32 = 1_024;
/// The most bytes of keys and values that are taken.
const TAKEN_BYTES_MAX: usize = 4 * 1_024 * 1_024;
/// How often it is read at most when transactions end meanwhile.
const READS_MAX: u32 = 20;

/// A key and its value.
pub(super) type Entry = (Vec<u8>, Vec<u8>);

/// What the bucket of that name holds; `None` if there is none.
///
/// # Errors
/// `InvalidData` where the file is no bbolt database, `WouldBlock` where transactions ended during every one of the reads.
pub(super) fn bucket(path: &Path, name: &[u8]) -> io::Result<Option<Vec<Entry>>> {
    bucket_while(&File::open(path)?, name, || ())
}

/// The last key of the bucket of that name, in a database that nobody writes to, however large; `None` if there is none.
///
/// # Errors
/// `InvalidData` where the file is no bbolt database.
pub(super) fn last_key(path: &Path, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let file = File::open(path)?;
    let newest = Metas::read(&file)?.newest()?;
    Reader::of(&file, newest).last_key(newest.root, name)
}

/// As `bucket`; `meanwhile` is called between the reading and the look whether a transaction ended.
fn bucket_while(file: &File, name: &[u8], mut meanwhile: impl FnMut()) -> io::Result<Option<Vec<Entry>>> {
    for _ in 0..READS_MAX {
        let before = Metas::read(file)?;
        let newest = before.newest()?;
        let read = Reader::of(file, newest).bucket(newest.root, name);
        meanwhile();
        // Both of them: one that is just being written hides that another was.
        if Metas::read(file)? == before {
            return read;
        }
    }
    Err(io::Error::new(io::ErrorKind::WouldBlock, "it was written to during every read"))
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no bbolt database, or a damaged one: {what}"))
}

fn bytes_at<const COUNT: usize>(bytes: &[u8], at: usize) -> io::Result<[u8; COUNT]> {
    let part = at.checked_add(COUNT).and_then(|end| bytes.get(at..end));
    part.and_then(|part| part.try_into().ok()).ok_or_else(|| damaged("a page ends too early"))
}

fn u16_at(bytes: &[u8], at: usize) -> io::Result<u16> {
    bytes_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> io::Result<u32> {
    bytes_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> io::Result<u64> {
    bytes_at(bytes, at).map(u64::from_le_bytes)
}

fn slice(bytes: &[u8], at: usize, count: u32) -> io::Result<&[u8]> {
    let end = usize::try_from(count).ok().and_then(|count| at.checked_add(count));
    end.and_then(|end| bytes.get(at..end)).ok_or_else(|| damaged("an element leads out of its page"))
}

/// Where a transaction left the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Meta {
    page_bytes: u64,
    root: u64,
    transaction: u64,
}

/// Both meta pages, which take turns; `None` where there is no whole one, as in the middle of its being written.
#[derive(Debug, PartialEq, Eq)]
struct Metas(Option<Meta>, Option<Meta>);

impl Metas {
    fn read(file: &File) -> io::Result<Self> {
        let first = Meta::at(file, 0)?;
        let sizes = first.map_or_else(|| PAGE_BYTES.to_vec(), |meta| vec![meta.page_bytes]);
        let mut second = None;
        for page_bytes in sizes {
            second = Meta::at(file, page_bytes)?.filter(|meta| meta.page_bytes == page_bytes);
            if second.is_some() {
                break;
            }
        }
        Ok(Self(first, second))
    }

    /// That of the last transaction that ended.
    fn newest(&self) -> io::Result<Meta> {
        let Self(first, second) = *self;
        first.into_iter().chain(second).max_by_key(|meta| meta.transaction).ok_or_else(|| damaged("no meta page fits"))
    }
}

impl Meta {
    /// `None` if what lies there is no whole meta page, as in the middle of its being written.
    fn at(file: &File, offset: u64) -> io::Result<Option<Self>> {
        let mut page = [0; HEADER_BYTES + META_BYTES];
        match file.read_exact_at(&mut page, offset) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let meta = &page[HEADER_BYTES..];
        let whole = u32_at(meta, 0)? == MAGIC && u32_at(meta, 4)? == FORMAT && u64_at(meta, 56)? == fnv1a(&meta[..56]);
        let found =
            Self { page_bytes: u64::from(u32_at(meta, 8)?), root: u64_at(meta, 16)?, transaction: u64_at(meta, 48)? };
        Ok(Some(found).filter(|meta| whole && (1..=PAGE_BYTES_MAX).contains(&meta.page_bytes)))
    }
}

/// FNV-1a of 64 bits, as bbolt sums up its meta pages.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// An element of a leaf: its flags, its key and its value.
type Element = (u32, Vec<u8>, Vec<u8>);

struct Reader<'f> {
    file: &'f File,
    page_bytes: u64,
    pages_left: usize,
    bytes_left: usize,
    found: Vec<Element>,
}

impl<'f> Reader<'f> {
    fn of(file: &'f File, meta: Meta) -> Self {
        Self {
            file,
            page_bytes: meta.page_bytes,
            pages_left: PAGES_MAX,
            bytes_left: TAKEN_BYTES_MAX,
            found: Vec::new(),
        }
    }

    /// What stands for the bucket of that name among all of them.
    fn header(&mut self, root: u64, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.tree(root, 0)?;
        let buckets = std::mem::take(&mut self.found);
        let own = buckets.into_iter().find(|(flags, key, _)| flags & IS_BUCKET != 0 && key == name);
        Ok(own.map(|(_, _, header)| header))
    }

    fn last_key(mut self, root: u64, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let Some(header) = self.header(root, name)? else { return Ok(None) };
        match u64_at(&header, 0)? {
            0 => {
                self.leaf(header.get(HEADER_BYTES..).unwrap_or_default())?;
                Ok(self.found.pop().map(|(_, key, _)| key))
            }
            page => self.last_key_below(page),
        }
    }

    /// Goes down to the last leaf. Of each page the elements alone are read: behind them lie values of any size.
    fn last_key_below(&self, mut number: u64) -> io::Result<Option<Vec<u8>>> {
        for _ in 0..=DEPTH_MAX {
            let offset = number.checked_mul(self.page_bytes).ok_or_else(|| damaged("a page lies nowhere"))?;
            let mut header = [0; HEADER_BYTES];
            self.file.read_exact_at(&mut header, offset)?;
            let (flags, count) = (u16_at(&header, 8)?, u64::from(u16_at(&header, 10)?));
            if u64_at(&header, 0)? != number {
                return Err(damaged("a page has another's number"));
            }
            let Some(last) = count.checked_sub(1) else { return Ok(None) };
            let at = offset + HEADER_BYTES as u64 + last * ELEMENT_BYTES as u64;
            let mut element = [0; ELEMENT_BYTES];
            self.file.read_exact_at(&mut element, at)?;
            if flags & IS_BRANCH != 0 {
                number = u64_at(&element, 8)?;
                continue;
            }
            let (start, bytes) = (u32_at(&element, 4)?, u32_at(&element, 8)?);
            if flags & IS_LEAF == 0 || bytes > KEY_BYTES_MAX {
                return Err(damaged("a page of a tree is neither branch nor leaf, or its key is too long"));
            }
            let mut key = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
            self.file.read_exact_at(&mut key, at + u64::from(start))?;
            return Ok(Some(key));
        }
        Err(damaged("a tree is too deep"))
    }

    fn bucket(mut self, root: u64, name: &[u8]) -> io::Result<Option<Vec<Entry>>> {
        let Some(header) = self.header(root, name)? else { return Ok(None) };
        match u64_at(&header, 0)? {
            // A small bucket lies behind its own header, as one page.
            0 => self.leaf(header.get(HEADER_BYTES..).unwrap_or_default())?,
            page => self.tree(page, 0)?,
        }
        Ok(Some(self.found.into_iter().map(|(_, key, value)| (key, value)).collect()))
    }

    fn tree(&mut self, number: u64, depth: u8) -> io::Result<()> {
        let page = self.page(number)?;
        let flags = u16_at(&page, 8)?;
        if flags & IS_LEAF != 0 {
            return self.leaf(&page);
        }
        if flags & IS_BRANCH == 0 || depth == DEPTH_MAX {
            return Err(damaged("a page of a tree is neither branch nor leaf"));
        }
        for index in 0..usize::from(u16_at(&page, 10)?) {
            self.tree(u64_at(&page, HEADER_BYTES + index * ELEMENT_BYTES + 8)?, depth + 1)?;
        }
        Ok(())
    }

    /// Takes each element of a leaf.
    fn leaf(&mut self, page: &[u8]) -> io::Result<()> {
        for index in 0..usize::from(u16_at(page, 10)?) {
            let element = HEADER_BYTES + index * ELEMENT_BYTES;
            let (flags, at) = (u32_at(page, element)?, u32_at(page, element + 4)?);
            let (key, value) = (u32_at(page, element + 8)?, u32_at(page, element + 12)?);
            let start = usize::try_from(at).ok().and_then(|at| element.checked_add(at));
            let start = start.ok_or_else(|| damaged("an element leads out of its page"))?;
            let key = slice(page, start, key)?;
            let value = slice(page, start + key.len(), value)?;
            let left = self.bytes_left.checked_sub(key.len() + value.len());
            self.bytes_left = left.ok_or_else(|| damaged("too many bytes"))?;
            self.found.push((flags, key.to_vec(), value.to_vec()));
        }
        Ok(())
    }

    fn page(&mut self, number: u64) -> io::Result<Vec<u8>> {
        self.pages_left = self.pages_left.checked_sub(1).ok_or_else(|| damaged("too many pages"))?;
        let offset = number.checked_mul(self.page_bytes).ok_or_else(|| damaged("a page lies nowhere"))?;
        let mut header = [0; HEADER_BYTES];
        self.file.read_exact_at(&mut header, offset)?;
        let bytes = (u64::from(u32_at(&header, 12)?) + 1).saturating_mul(self.page_bytes);
        if u64_at(&header, 0)? != number || bytes > PAGE_BYTES_MAX {
            return Err(damaged("a page has another's number, or is too large"));
        }
        let mut page = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut page, offset)?;
        Ok(page)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::real::test_folder::TestFolder;

    fn page(number: u64, flags: u16, elements: &[(u32, &[u8], &[u8])]) -> Vec<u8> {
        let mut page = [&number.to_le_bytes()[..], &flags.to_le_bytes(), &[0; 6]].concat();
        page[10..12].copy_from_slice(&u16::try_from(elements.len()).unwrap().to_le_bytes());
        let mut data = Vec::new();
        for (index, (flags, key, value)) in elements.iter().enumerate() {
            let at = (elements.len() - index) * ELEMENT_BYTES + data.len();
            let numbers = [at, key.len(), value.len()].map(|number| u32::try_from(number).unwrap());
            page.extend([[*flags].as_slice(), &numbers].concat().iter().flat_map(|number| number.to_le_bytes()));
            data.extend([*key, *value].concat());
        }
        page.extend(data);
        page
    }

    fn meta(number: u64, root: u64, transaction: u64) -> Vec<u8> {
        let mut meta = [MAGIC, FORMAT, 4_096, 0].iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
        meta.extend([root, 0, 2, 9, transaction].iter().flat_map(|number| number.to_le_bytes()));
        meta.extend(fnv1a(&meta).to_le_bytes());
        [page(number, 0x04, &[]), meta].concat()
    }

    fn file(pages: &[Vec<u8>]) -> Vec<u8> {
        let whole = |page: &Vec<u8>| [page.as_slice(), &vec![0; 4_096 - page.len()]].concat();
        pages.iter().flat_map(whole).collect()
    }

    /// A database whose bucket `members` has these entries, on a page of its own or within the root's.
    pub(in crate::real::etcd) fn database(members: &[(&str, &str)], inline: bool) -> Vec<u8> {
        let elements: Vec<(u32, &[u8], &[u8])> =
            members.iter().map(|(key, value)| (0, key.as_bytes(), value.as_bytes())).collect();
        let leaf = page(if inline { 0 } else { 5 }, IS_LEAF, &elements);
        let header = |page: u64| [page.to_le_bytes(), 0_u64.to_le_bytes()].concat();
        let value = if inline { [header(0), leaf.clone()].concat() } else { header(5) };
        let root = page(4, IS_LEAF, &[(IS_BUCKET, b"key", &header(7)), (IS_BUCKET, b"members", &value)]);
        let old = page(3, IS_LEAF, &[]);
        file(&[meta(0, 3, 8), meta(1, 4, 9), page(2, 0x10, &[]), old, root, leaf])
    }

    #[test]
    fn a_bucket_is_read_from_where_the_last_transaction_left_it() {
        let folder = TestFolder::new("bolt");
        for inline in [false, true] {
            folder.write("db", database(&[("a", "1"), ("b", "22")], inline));
            let entries = bucket(&folder.path("db"), b"members").unwrap().unwrap();
            assert_eq!(entries, [(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), b"22".to_vec())], "{inline}");
            assert_eq!(bucket(&folder.path("db"), b"nowhere").unwrap(), None);
        }
        let mut torn = database(&[("a", "1")], false);
        torn[4_096 + HEADER_BYTES + 48] ^= 1;
        folder.write("db", torn);
        assert_eq!(bucket(&folder.path("db"), b"members").unwrap(), None, "the transaction before had none");
    }

    /// A database at whose keys are those, and whose `meta` says that; `meta` lies within the root's page, as etcd's does.
    pub(in crate::real::etcd) fn keys(keys: &[&[u8]], meta_of: &[(&str, &[u8])]) -> Vec<u8> {
        let elements: Vec<(u32, &[u8], &[u8])> = keys.iter().map(|key| (0, *key, &b"value"[..])).collect();
        let half = elements.len() / 2;
        let leaves = [page(6, IS_LEAF, &elements[..half]), page(7, IS_LEAF, &elements[half..])];
        let mut branch = page(5, IS_BRANCH, &[]);
        branch[10..12].copy_from_slice(&2_u16.to_le_bytes());
        for child in [6_u64, 7] {
            branch.extend([0_u32, 0].map(u32::to_le_bytes).concat());
            branch.extend(child.to_le_bytes());
        }
        let header = |page: u64| [page.to_le_bytes(), 0_u64.to_le_bytes()].concat();
        let within: Vec<(u32, &[u8], &[u8])> = meta_of.iter().map(|(key, value)| (0, key.as_bytes(), *value)).collect();
        let within = [header(0), page(0, IS_LEAF, &within)].concat();
        let root = page(4, IS_LEAF, &[(IS_BUCKET, b"key", &header(5)), (IS_BUCKET, b"meta", &within)]);
        let old = page(3, IS_LEAF, &[]);
        let pages = [meta(0, 3, 8), meta(1, 4, 9), page(2, 0x10, &[]), old, root, branch];
        file(&[&pages[..], &leaves].concat())
    }

    #[test]
    fn the_last_key_is_found_however_much_lies_before_it() {
        let folder = TestFolder::new("bolt-last");
        folder.write("db", keys(&[b"a", b"b", b"c"], &[("x", b"1"), ("y", b"2")]));
        let last = |name: &[u8]| last_key(&folder.path("db"), name).unwrap();
        assert_eq!(last(b"key").as_deref(), Some(&b"c"[..]));
        assert_eq!(last(b"meta").as_deref(), Some(&b"y"[..]), "within the root's page");
        assert_eq!(last(b"nowhere"), None);
        folder.write("db", keys(&[], &[]));
        assert_eq!((last(b"key"), last(b"meta")), (None, None));
        let whole = keys(&[b"a", b"b", b"c"], &[("x", b"1")]);
        for place in (0..whole.len()).step_by(13) {
            let mut other = whole.clone();
            other[place] ^= 0xff;
            folder.write("db", other);
            let _ = last_key(&folder.path("db"), b"key");
        }
    }

    #[test]
    fn a_bucket_of_several_pages_and_one_that_flows_over_are_read_whole() {
        let folder = TestFolder::new("bolt-branch");
        let (long, header) = (vec![7; 6_000], |page: u64| [page.to_le_bytes(), 0_u64.to_le_bytes()].concat());
        let root = page(4, IS_LEAF, &[(IS_BUCKET, b"members", &header(5))]);
        // Two children: keys of a branch lie behind its elements.
        let mut branch = page(5, IS_BRANCH, &[]);
        branch[10..12].copy_from_slice(&2_u16.to_le_bytes());
        for (index, child) in [6_u64, 7].into_iter().enumerate() {
            branch.extend([u32::try_from((2 - index) * ELEMENT_BYTES).unwrap(), 0].map(u32::to_le_bytes).concat());
            branch.extend(child.to_le_bytes());
        }
        let mut wide = page(7, IS_LEAF, &[(0, b"b", &long)]);
        wide[12..16].copy_from_slice(&1_u32.to_le_bytes());
        wide.resize(2 * 4_096, 0);
        let old = page(3, IS_LEAF, &[]);
        let small = page(6, IS_LEAF, &[(0, b"a", b"1")]);
        let pages = [meta(0, 3, 8), meta(1, 4, 9), page(2, 0x10, &[]), old, root, branch, small];
        folder.write("db", [file(&pages), wide].concat());
        let entries = bucket(&folder.path("db"), b"members").unwrap().unwrap();
        assert_eq!(entries, [(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), long)]);
    }

    #[test]
    fn a_database_in_which_a_transaction_ended_meanwhile_is_read_again() {
        let folder = TestFolder::new("bolt-written");
        folder.write("db", database(&[("a", "old")], false));
        let (open, mut reads) = (File::open(folder.path("db")).unwrap(), 0);
        let entries = bucket_while(&open, b"members", || {
            reads += 1;
            if reads == 1 {
                // The next transaction: its meta page is the other one, and the page of the bucket is another's now.
                let mut next = database(&[("a", "new")], false);
                next[..4_096].copy_from_slice(&file(&[meta(0, 4, 10)]));
                folder.write("db", next);
            }
        });
        assert_eq!((entries.unwrap().unwrap(), reads), (vec![(b"a".to_vec(), b"new".to_vec())], 2));
        let mut turn = 10;
        let never = bucket_while(&open, b"members", || {
            turn += 1;
            let mut next = database(&[("a", "new")], false);
            next[..4_096].copy_from_slice(&file(&[meta(0, 4, turn)]));
            folder.write("db", next);
        });
        assert_eq!(never.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn what_is_no_database_is_told_and_never_read_beyond_its_end() {
        let folder = TestFolder::new("bolt-damaged");
        let whole = database(&[("a", "1"), ("b", "22")], false);
        for length in (0..whole.len()).step_by(61) {
            folder.write("db", &whole[..length]);
            let _ = bucket(&folder.path("db"), b"members");
        }
        for place in 0..whole.len() {
            let mut other = whole.clone();
            other[place] ^= 0xff;
            // Whatever stands there: an answer or an error, in bounded time and room.
            if place % 37 == 0 || place % 4_096 < 160 {
                folder.write("db", &other);
                let _ = bucket(&folder.path("db"), b"members");
            }
        }
        folder.write("db", [0; 9_000]);
        assert_eq!(bucket(&folder.path("db"), b"members").unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
