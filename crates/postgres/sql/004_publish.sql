-- Publishing on a topic as part of a transaction: it is delivered when the transaction commits, and
-- never when it rolls back. There is no limit of 8,000 bytes. What could not be delivered is an
-- error here, whatever the sink.

DROP FUNCTION IF EXISTS tidewire.say(pg_catalog."char", pg_catalog.text, pg_catalog.text, pg_catalog.text);

CREATE OR REPLACE FUNCTION tidewire.check_message(topic pg_catalog.text, event pg_catalog.text, bytes pg_catalog.int4)
RETURNS pg_catalog.void LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
  IF topic IS NULL OR topic !~ '[^[:space:]]' OR pg_catalog.octet_length(topic) > 255
    OR topic ~ '[[:cntrl:]]' THEN
    RAISE EXCEPTION 'a topic is a text of 1 to 255 bytes without control characters, and not blank'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF pg_catalog.octet_length(event) > 255 OR event ~ '[[:cntrl:]]' THEN
    RAISE EXCEPTION 'the name of an event is a text of at most 255 bytes without control characters'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF bytes > @payload_bytes@ THEN
    RAISE EXCEPTION 'a payload has at most @payload_bytes@ bytes as JSON, this one has %', bytes
      USING ERRCODE = 'program_limit_exceeded';
  END IF;
END
$body$;
REVOKE ALL ON FUNCTION tidewire.check_message(pg_catalog.text, pg_catalog.text, pg_catalog.int4) FROM PUBLIC;

-- Writes a message, whose payload is JSON or, of kind M, a text, to where the server reads.
CREATE OR REPLACE FUNCTION tidewire.enqueue(kind pg_catalog."char", topic pg_catalog.text, payload pg_catalog.text, event pg_catalog.text)
RETURNS pg_catalog.void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
  it tidewire.settings;
  json pg_catalog.text := CASE kind WHEN 'J' THEN payload ELSE pg_catalog.to_json(payload)::pg_catalog.text END;
  content pg_catalog.bytea;
  key pg_catalog.bytea;
  number pg_catalog.int8;
BEGIN
  PERFORM tidewire.check_message(topic, event, pg_catalog.octet_length(json));
  -- Readers get UTF-8. What the encoding of the database cannot express in it fails here.
  content := pg_catalog.convert_to(pg_catalog.json_build_object(
    'topic', topic, 'event', event,
    CASE kind WHEN 'J' THEN 'json' ELSE 'text' END, json::pg_catalog.json)::pg_catalog.text, 'UTF8');
  SELECT s.* INTO it FROM tidewire.settings s;
  IF it.sink = 'wal' THEN
    -- Any role can write such a message, so it begins with a signature of the rest.
    key := pg_catalog.convert_to(it.message_key, 'UTF8');
    content := pg_catalog.convert_to(pg_catalog.encode(
      pg_catalog.sha256(key || pg_catalog.sha256(key || content)), 'hex'), 'UTF8') || content;
    PERFORM pg_catalog.pg_logical_emit_message(true, 'tidewire', content);
    RETURN;
  END IF;
  INSERT INTO tidewire.outbox (op, topic, event, payload) VALUES (kind, topic, event, payload)
    RETURNING id INTO number;
  IF NOT pg_catalog.pg_try_advisory_xact_lock_shared(it.lock_key, 1) THEN
    PERFORM pg_catalog.pg_notify('tidewire', '');
  END IF;
  IF number % 256 = 0 THEN
    PERFORM tidewire.prune();
  END IF;
END
$body$;
REVOKE ALL ON FUNCTION tidewire.enqueue(pg_catalog."char", pg_catalog.text, pg_catalog.text, pg_catalog.text) FROM PUBLIC;

CREATE OR REPLACE FUNCTION tidewire.publish(topic pg_catalog.text, payload pg_catalog.jsonb, event pg_catalog.text DEFAULT NULL)
RETURNS pg_catalog.void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
  -- Common readers of JSON stop at some depth, and have no number beyond a double.
  IF pg_catalog.jsonb_path_exists(payload,
      'strict $.**{100 to last} ? (@.type() == "array" || @.type() == "object")') THEN
    RAISE EXCEPTION 'a payload is nested at most 100 levels deep'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF pg_catalog.jsonb_path_exists(payload,
      'strict $.** ? (@.type() == "number" && (@ > 1.7976931348623158e308 || @ < -1.7976931348623158e308))') THEN
    RAISE EXCEPTION 'a number in a payload must fit a double' USING ERRCODE = 'numeric_value_out_of_range';
  END IF;
  PERFORM tidewire.enqueue('J', topic, coalesce(payload::pg_catalog.text, 'null'), event);
END
$body$;
COMMENT ON FUNCTION tidewire.publish(pg_catalog.text, pg_catalog.jsonb, pg_catalog.text) IS
  'Tidewire: publishes JSON on a topic when this transaction commits';

CREATE OR REPLACE FUNCTION tidewire.publish(topic pg_catalog.text, payload pg_catalog.text, event pg_catalog.text DEFAULT NULL)
RETURNS pg_catalog.void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
  PERFORM tidewire.enqueue('M', topic, coalesce(payload, ''), event);
END
$body$;
COMMENT ON FUNCTION tidewire.publish(pg_catalog.text, pg_catalog.text, pg_catalog.text) IS
  'Tidewire: publishes a text on a topic when this transaction commits';

REVOKE ALL ON FUNCTION
  tidewire.publish(pg_catalog.text, pg_catalog.jsonb, pg_catalog.text),
  tidewire.publish(pg_catalog.text, pg_catalog.text, pg_catalog.text)
  FROM PUBLIC;
