-- Saying something on a topic as part of a transaction: it is said when the transaction commits,
-- and was never said when it rolls back. There is no limit of 8,000 bytes.

CREATE OR REPLACE FUNCTION tidewire.say(kind pg_catalog."char", topic pg_catalog.text, payload pg_catalog.text, event pg_catalog.text)
RETURNS pg_catalog.void LANGUAGE plpgsql SET search_path = '' AS $body$
DECLARE
  sink pg_catalog.text;
  number pg_catalog.int8;
BEGIN
  IF topic IS NULL OR topic = '' OR pg_catalog.octet_length(topic) > 255
    OR topic ~ '[[:cntrl:]]' THEN
    RAISE EXCEPTION 'a topic is a text of 1 to 255 bytes without control characters'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  SELECT s.sink INTO sink FROM tidewire.settings s;
  IF sink = 'wal' THEN
    PERFORM pg_catalog.pg_logical_emit_message(true, 'tidewire', pg_catalog.json_build_object(
      'topic', topic, 'event', event,
      CASE kind WHEN 'J' THEN 'json' ELSE 'text' END,
      CASE kind WHEN 'J' THEN payload::pg_catalog.json ELSE pg_catalog.to_json(payload) END)::pg_catalog.text);
    RETURN;
  END IF;
  INSERT INTO tidewire.outbox (op, topic, event, payload) VALUES (kind, topic, event, payload)
    RETURNING id INTO number;
  IF NOT pg_catalog.pg_try_advisory_xact_lock_shared(1953064037, 1) THEN
    PERFORM pg_catalog.pg_notify('tidewire', '');
  END IF;
  IF number % 256 = 0 THEN
    PERFORM tidewire.prune();
  END IF;
END
$body$;
REVOKE ALL ON FUNCTION tidewire.say(pg_catalog."char", pg_catalog.text, pg_catalog.text, pg_catalog.text) FROM PUBLIC;

CREATE OR REPLACE FUNCTION tidewire.publish(topic pg_catalog.text, payload pg_catalog.jsonb, event pg_catalog.text DEFAULT NULL)
RETURNS pg_catalog.void LANGUAGE sql SECURITY DEFINER SET search_path = '' AS $body$
  SELECT tidewire.say('J', topic, coalesce(payload::pg_catalog.text, 'null'), event)
$body$;
COMMENT ON FUNCTION tidewire.publish(pg_catalog.text, pg_catalog.jsonb, pg_catalog.text) IS
  'Tidewire: says JSON on a topic when this transaction commits';

CREATE OR REPLACE FUNCTION tidewire.publish(topic pg_catalog.text, payload pg_catalog.text, event pg_catalog.text DEFAULT NULL)
RETURNS pg_catalog.void LANGUAGE sql SECURITY DEFINER SET search_path = '' AS $body$
  SELECT tidewire.say('M', topic, coalesce(payload, ''), event)
$body$;
COMMENT ON FUNCTION tidewire.publish(pg_catalog.text, pg_catalog.text, pg_catalog.text) IS
  'Tidewire: says a text on a topic when this transaction commits';

REVOKE ALL ON FUNCTION
  tidewire.publish(pg_catalog.text, pg_catalog.jsonb, pg_catalog.text),
  tidewire.publish(pg_catalog.text, pg_catalog.text, pg_catalog.text)
  FROM PUBLIC;
