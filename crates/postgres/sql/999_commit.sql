INSERT INTO tidewire.versions (version) VALUES (@version@) ON CONFLICT (version) DO NOTHING;
COMMIT;
