//! Random histories with everything that is odd about histories, as streams for `git fast-import`.

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Names as they are stored, and as the demo shows them. The last one is the alias of the first, by the mailmap.
pub(crate) const AUTHORS: [(&[u8], &str); 8] = [
    (b"Ann Example", "Ann Example"),
    ("Zo\u{eb} \u{1f600}".as_bytes(), "Zo\u{eb} \u{1f600}"),
    (b"J\xfcrgen", "J\\xfcrgen"),
    (b"J\xf6rgen", "J\\xf6rgen"),
    (b"J\\xfcrgen", "J\\\\xfcrgen"),
    (b"C:\\path", "C:\\path"),
    (b"9\t9\tnine", "9\t9\tnine"),
    (b"ann", "Ann Example"),
];

const MAILMAP: &str = "Ann Example <ann@example.com> ann <ann@example.com>\n";
const START: u64 = 1_700_000_000;

/// A history of this many commits: merges, renames, binary files, deletions, empty commits, empty and strange messages, dates
/// out of order.
pub(crate) fn random_history(commits: u32, seed: u64) -> Vec<u8> {
    let mut history =
        History { random: StdRng::seed_from_u64(seed), stream: Vec::new(), branches: Vec::new(), files: 0 };
    history.root();
    for mark in 2..=commits {
        history.commit(mark);
    }
    history.stream
}

struct History {
    random: StdRng,
    stream: Vec<u8>,
    branches: Vec<Branch>,
    files: u32,
}

#[derive(Clone)]
struct Branch {
    tip: u32,
    files: Vec<String>,
}

impl History {
    fn root(&mut self) {
        self.header(1, 0);
        self.put(b"M 100644 inline .mailmap\n");
        self.data(MAILMAP.as_bytes());
        self.branches.push(Branch { tip: 1, files: Vec::new() });
    }

    /// Goes on with the main branch, which HEAD is to reach everything from, or with another one.
    fn commit(&mut self, mark: u32) {
        let others = self.branches.len() - 1;
        match self.random.random_range(0..10) {
            0 if others < 3 => self.start_branch(mark),
            1 if others > 0 => self.merge(mark),
            2 if others > 0 => self.change(mark, others),
            _ => self.change(mark, 0),
        }
    }

    fn start_branch(&mut self, mark: u32) {
        self.branches.push(self.branches[0].clone());
        self.change(mark, self.branches.len() - 1);
    }

    fn merge(&mut self, mark: u32) {
        let other = self.branches.pop().expect("there is another branch");
        self.header(mark, 0);
        let (main, other) = (self.branches[0].tip, other.tip);
        self.put(format!("from :{main}\nmerge :{other}\n").as_bytes());
        self.branches[0].tip = mark;
    }

    fn change(&mut self, mark: u32, branch: usize) {
        self.header(mark, branch);
        let tip = self.branches[branch].tip;
        self.put(format!("from :{tip}\n").as_bytes());
        self.branches[branch].tip = mark;
        for _ in 0..self.random.random_range(0..3) {
            self.change_file(branch);
        }
        self.put(b"\n");
    }

    fn change_file(&mut self, branch: usize) {
        let files = self.branches[branch].files.len();
        let kind = if files == 0 { 0 } else { self.random.random_range(0..6) };
        if kind == 0 || files > 50 && kind == 1 {
            self.add_file(branch);
            return;
        }
        let chosen = self.random.random_range(0..files);
        let name = self.branches[branch].files[chosen].clone();
        match kind {
            1 => {
                self.put(format!("D {name}\n").as_bytes());
                self.branches[branch].files.swap_remove(chosen);
            }
            2 | 3 => {
                let new = self.file_name();
                self.put(format!("R {name} {new}\n").as_bytes());
                self.branches[branch].files[chosen] = new;
            }
            _ => self.write_file(&name),
        }
    }

    fn add_file(&mut self, branch: usize) {
        let name = self.file_name();
        self.write_file(&name);
        self.branches[branch].files.push(name);
    }

    fn file_name(&mut self) -> String {
        self.files += 1;
        let names = ["file", "5\\t6\\tfile", "\\001file", "\\377file", "dir/file\\n", "fi le"];
        format!("\"{}{}\"", names[self.random.random_range(0..names.len())], self.files)
    }

    fn write_file(&mut self, name: &str) {
        let mut content: Vec<u8> = Vec::new();
        for _ in 0..self.random.random_range(0..12) {
            content.extend(format!("line {}\n", self.random.random_range(0..9)).as_bytes());
        }
        if self.random.random_ratio(1, 8) {
            content.push(0);
        }
        self.put(format!("M 100644 inline {name}\n").as_bytes());
        self.data(&content);
    }

    fn header(&mut self, mark: u32, branch: usize) {
        let branch = if branch == 0 { "main" } else { "side" };
        let (name, _) = AUTHORS[self.random.random_range(0..AUTHORS.len())];
        let email: &[u8] = if name == b"ann" { b"ann@example.com" } else { b"someone@example.com" };
        let time = START + u64::from(mark) * 600 - self.random.random_range(0..5_000);
        self.put(format!("commit refs/heads/{branch}\nmark :{mark}\nauthor ").as_bytes());
        self.put(&[name, b" <", email].concat());
        self.put(format!("> {time} +0200\ncommitter C <c@example.com> {time} +0000\n").as_bytes());
        let messages: [&[u8]; 5] = [b"", b"change", b"\n\n", b"\x01 1\t2\t3\n\nbody\n", b"caf\xe9"];
        let message = messages[self.random.random_range(0..messages.len())];
        self.data(message);
    }

    fn data(&mut self, data: &[u8]) {
        self.put(format!("data {}\n", data.len()).as_bytes());
        self.put(data);
        self.put(b"\n");
    }

    fn put(&mut self, bytes: &[u8]) {
        self.stream.extend_from_slice(bytes);
    }
}
