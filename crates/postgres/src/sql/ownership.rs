//! Whose objects are taken for ours: a role that owns a function, a view or a table decides what runs
//! when somebody uses it, so a name or a comment proves nothing.
//!
//! The fragments are SQL text that names everything with its schema; the scripts of the installation
//! and the queries of server and doctor are made with the same.

/// The role that owns schema `tidewire` where the installing role may create roles. Nobody can log in
/// as it or is a member of it, and it has no other right.
pub(crate) const DEFINER: &str = "tidewire_owner";

/// Why the role [`DEFINER`] is not what its name says; null when it is, or is not there.
///
/// Members are refused unless they can act as the current role anyway: since PostgreSQL 16 a role that
/// creates another remains its administrator.
macro_rules! definer_flaw {
    () => {
        "(SELECT CASE
    WHEN r.rolcanlogin THEN 'it can log in'
    WHEN r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls
      THEN 'it has an attribute that it does not need'
    WHEN EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE m.member = r.oid)
      THEN 'it is a member of another role'
    WHEN EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE m.roleid = r.oid AND NOT
        pg_catalog.pg_has_role(m.member, CURRENT_USER, 'MEMBER, MEMBER WITH ADMIN OPTION'))
      THEN 'it has members, who can act as it'
    WHEN EXISTS (
        SELECT FROM pg_catalog.pg_shdepend d
        JOIN pg_catalog.pg_database b ON b.oid = d.dbid AND b.datname = pg_catalog.current_database()
        LEFT JOIN pg_catalog.pg_class c ON c.oid = d.objid
          AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
        LEFT JOIN pg_catalog.pg_proc p ON p.oid = d.objid
          AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
        LEFT JOIN pg_catalog.pg_namespace n ON n.oid = coalesce(c.relnamespace, p.pronamespace, d.objid)
        WHERE d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND d.refobjid = r.oid
          AND d.deptype = 'o' AND n.nspname IS DISTINCT FROM 'tidewire')
      THEN 'it owns something else'
  END FROM pg_catalog.pg_roles r WHERE r.rolname = 'tidewire_owner')"
    };
}

/// Whether what the role of this oid owns may be run and read by the current role: the owner can act as
/// the current role anyway (it is the same one, a superuser, a member, or an administrator of it), or
/// it is our own definer.
macro_rules! trusted {
    ($owner:expr) => {
        concat!(
            "(pg_catalog.pg_has_role(",
            $owner,
            ", CURRENT_USER, 'MEMBER, MEMBER WITH ADMIN OPTION')
    OR (pg_catalog.current_setting('server_version_num')::pg_catalog.int4 < 160000
      AND EXISTS (SELECT FROM pg_catalog.pg_roles owning, pg_catalog.pg_roles me
        WHERE owning.oid = ",
            $owner,
            " AND owning.rolcreaterole AND me.rolname = CURRENT_USER AND NOT me.rolsuper))
    OR (pg_catalog.pg_get_userbyid(",
            $owner,
            ") = 'tidewire_owner' AND ",
            crate::sql::ownership::definer_flaw!(),
            " IS NULL))"
        )
    };
}

/// Schema `tidewire` and everything in it, each with its owner.
macro_rules! tidewire_objects {
    () => {
        "SELECT 'schema tidewire', n.nspowner FROM pg_catalog.pg_namespace n WHERE n.nspname = 'tidewire'
    UNION ALL SELECT pg_catalog.format('relation tidewire.%I', c.relname), c.relowner
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      WHERE n.nspname = 'tidewire'
    UNION ALL SELECT pg_catalog.format('function tidewire.%I', p.proname), p.proowner
      FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
      WHERE n.nspname = 'tidewire'
    UNION ALL SELECT pg_catalog.format('type tidewire.%I', t.typname), t.typowner
      FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
      WHERE n.nspname = 'tidewire'
    UNION ALL SELECT pg_catalog.format('operator tidewire.%s', t.oprname), t.oprowner
      FROM pg_catalog.pg_operator t JOIN pg_catalog.pg_namespace n ON n.oid = t.oprnamespace
      WHERE n.nspname = 'tidewire'"
    };
}

/// What of ours is in a schema that others use, too, each with its owner; the schema's name is an SQL
/// expression. Functions have no argument or are of text (25): others of these names are not ours and
/// stop nothing.
macro_rules! surface_objects {
    ($surface:expr) => {
        concat!(
            "SELECT pg_catalog.format('function %I.%I', n.nspname, p.proname), p.proowner
      FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
      WHERE n.nspname = ",
            $surface,
            " AND p.proname IN ('notify_table_change', 'enable_realtime', 'disable_realtime')
        AND p.proargtypes::pg_catalog.text IN ('', '25', '25 25')
    UNION ALL SELECT pg_catalog.format('relation %I.%I', n.nspname, c.relname), c.relowner
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      WHERE n.nspname = ",
            $surface,
            " AND c.relname = 'realtime_enabled_tables'"
        )
    };
}

/// The oid of the trigger function that is installed, null where it is a stranger's.
macro_rules! trigger_function {
    () => {
        concat!(
            "(SELECT p.oid FROM tidewire.settings s
    JOIN pg_catalog.pg_namespace n ON n.nspname = s.surface
    JOIN pg_catalog.pg_proc p ON p.pronamespace = n.oid
      AND p.proname = 'notify_table_change' AND p.pronargs = 0
      AND pg_catalog.obj_description(p.oid, 'pg_proc') LIKE 'Tidewire:%'
    WHERE ",
            crate::sql::ownership::trusted!("p.proowner"),
            ")"
        )
    };
}

pub(crate) use {definer_flaw, surface_objects, tidewire_objects, trigger_function, trusted};

/// Fills the fragments into a script.
pub(super) fn fill(script: &str) -> String {
    const OBJECTS: &str =
        concat!(tidewire_objects!(), "\n    UNION ALL ", surface_objects!("@surface_text@"));
    script
        .replace("@objects@", OBJECTS)
        .replace("@tidewire_objects@", tidewire_objects!())
        .replace("@definer_flaw@", definer_flaw!())
        .replace("@definer@", DEFINER)
        .replace("@trusted(o.owner)@", trusted!("o.owner"))
        .replace("@trusted(p.proowner)@", trusted!("p.proowner"))
        .replace("@trusted(c.relowner)@", trusted!("c.relowner"))
}
