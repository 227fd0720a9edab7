//! Writes messages as PostgreSQL does, for tests and benches.

use super::*;

pub(crate) fn encode(message: &Message<'_>) -> Vec<u8> {
    encode_in(message, None)
}

/// With the id of the subtransaction, as inside a streamed part.
pub(crate) fn encode_in(message: &Message<'_>, xid: Option<u32>) -> Vec<u8> {
    let mut out = Vec::new();
    out.push(tag(message));
    if let Some(xid) = xid {
        out.extend(xid.to_be_bytes());
    }
    body(message, &mut out);
    out
}

fn tag(message: &Message<'_>) -> u8 {
    match message {
        Message::Begin(_) => b'B',
        Message::Commit(_) => b'C',
        Message::Origin(_) => b'O',
        Message::Relation(_) => b'R',
        Message::Type(_) => b'Y',
        Message::Insert(_) => b'I',
        Message::Update(_) => b'U',
        Message::Delete(_) => b'D',
        Message::Truncate(_) => b'T',
        Message::Logical(_) => b'M',
        Message::StreamStart(_) => b'S',
        Message::StreamStop => b'E',
        Message::StreamCommit(_) => b'c',
        Message::StreamAbort(_) => b'A',
    }
}

fn body(message: &Message<'_>, out: &mut Vec<u8>) {
    match message {
        Message::Begin(m) => {
            out.extend(m.commit_lsn.0.to_be_bytes());
            out.extend(m.committed_at.0.to_be_bytes());
            out.extend(m.xid.to_be_bytes());
        }
        Message::Commit(m) => {
            out.push(0);
            commit(m.commit_lsn, m.end_lsn, m.committed_at, out);
        }
        Message::Origin(m) => {
            out.extend(m.commit_lsn.0.to_be_bytes());
            name(m.name, out);
        }
        Message::Relation(m) => relation(m, out),
        Message::Type(m) => {
            out.extend(m.oid.to_be_bytes());
            name(m.schema, out);
            name(m.name, out);
        }
        Message::Insert(m) => {
            out.extend(m.relation.to_be_bytes());
            out.push(b'N');
            tuple(&m.new, out);
        }
        Message::Update(m) => {
            out.extend(m.relation.to_be_bytes());
            if let Some(o) = &m.old {
                old(o, out);
            }
            out.push(b'N');
            tuple(&m.new, out);
        }
        Message::Delete(m) => {
            out.extend(m.relation.to_be_bytes());
            old(&m.old, out);
        }
        Message::Truncate(m) => {
            out.extend((m.relations.len() as u32).to_be_bytes());
            out.push(u8::from(m.cascade) | u8::from(m.restart_identity) << 1);
            m.relations.iter().for_each(|oid| out.extend(oid.to_be_bytes()));
        }
        Message::Logical(m) => {
            out.push(u8::from(m.transactional));
            out.extend(m.lsn.0.to_be_bytes());
            name(m.prefix, out);
            counted(m.content, out);
        }
        Message::StreamStart(m) => {
            out.extend(m.xid.to_be_bytes());
            out.push(u8::from(m.first));
        }
        Message::StreamStop => {}
        Message::StreamCommit(m) => {
            out.extend(m.xid.to_be_bytes());
            out.push(0);
            commit(m.commit_lsn, m.end_lsn, m.committed_at, out);
        }
        Message::StreamAbort(m) => {
            out.extend(m.xid.to_be_bytes());
            out.extend(m.subxid.to_be_bytes());
            if let Some((lsn, moment)) = m.at {
                out.extend(lsn.0.to_be_bytes());
                out.extend(moment.0.to_be_bytes());
            }
        }
    }
}

fn commit(commit: Lsn, end: Lsn, at: Moment, out: &mut Vec<u8>) {
    out.extend(commit.0.to_be_bytes());
    out.extend(end.0.to_be_bytes());
    out.extend(at.0.to_be_bytes());
}

fn relation(m: &Relation<'_>, out: &mut Vec<u8>) {
    out.extend(m.oid.to_be_bytes());
    name(m.schema, out);
    name(m.table, out);
    out.push(match m.identity {
        Identity::Default => b'd',
        Identity::Nothing => b'n',
        Identity::Full => b'f',
        Identity::Index => b'i',
    });
    out.extend((m.columns.len() as u16).to_be_bytes());
    for column in &m.columns {
        out.push(u8::from(column.identity));
        name(column.name, out);
        out.extend(column.type_oid.to_be_bytes());
        out.extend(column.modifier.to_be_bytes());
    }
}

fn name(text: &[u8], out: &mut Vec<u8>) {
    out.extend(text);
    out.push(0);
}

fn old(old: &Old<'_>, out: &mut Vec<u8>) {
    let (letter, row) = match old {
        Old::Key(row) => (b'K', row),
        Old::Whole(row) => (b'O', row),
    };
    out.push(letter);
    tuple(row, out);
}

fn tuple(tuple: &Tuple<'_>, out: &mut Vec<u8>) {
    out.extend((tuple.count() as u16).to_be_bytes());
    tuple.data().for_each(|datum| datum.put(out));
}

fn counted(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend(bytes);
}
