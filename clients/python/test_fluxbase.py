"""The promises of Fluxbase's realtime page, and what its SDK sends beyond them."""

import itertools
import unittest

from . import server

# As they stand on the page.
NEW = {"id": 123, "name": "New Product", "price": 99.99}
UPDATED = {"id": 123, "name": "Updated Product", "price": 149.99}

numbers = itertools.count(1)


class Fluxbase(unittest.TestCase):
    def setUp(self):
        # A table of its own for each test, so that none hears what another did.
        self.schema = f"shop_{next(numbers)}"
        self.table = f"{self.schema}.products"
        self.channel = f"table:{self.table}"
        self.subscribe = {"type": "subscribe", "channel": self.channel}
        self.unsubscribe = {"type": "unsubscribe", "channel": self.channel}
        self.ack = {"type": "ack", "channel": self.channel}
        self.sql = server.shared.sql
        # The page's program tells old rows whole; reading the log, so do we for such a table.
        self.sql(
            f"CREATE SCHEMA {self.schema};"
            f"CREATE TABLE {self.table} (id serial PRIMARY KEY, name text, price numeric);"
            f"ALTER TABLE {self.table} REPLICA IDENTITY FULL"
        )

    def connect(self, query=""):
        return server.shared.socket("/realtime" + query)

    def insert(self, **row):
        names, values = ", ".join(row), ", ".join(repr(value) for value in row.values())
        self.sql(f"INSERT INTO {self.table} ({names}) VALUES ({values})")

    def broadcast(self, kind, **rows):
        payload = {"type": kind, "table": "products", "schema": self.schema, **rows}
        return {"type": "broadcast", "channel": self.channel, "payload": payload}

    def hears_nothing(self, socket):
        """Whatever came meanwhile stands before the answer."""
        error = {"type": "error", "error": "unknown message type"}
        self.assertEqual(socket.ask({"type": "nothing"}), error)

    def test_every_change_comes_as_the_page_shows_it(self):
        with self.connect() as socket:
            self.assertEqual(socket.ask(self.subscribe), self.ack)
            self.insert(**NEW)
            self.assertEqual(socket.receive(), self.broadcast("INSERT", record=NEW))
            self.sql(f"UPDATE {self.table} SET name = 'Updated Product', price = 149.99")
            updated = self.broadcast("UPDATE", record=UPDATED, old_record=NEW)
            self.assertEqual(socket.receive(), updated)
            self.sql(f"DELETE FROM {self.table}")
            self.assertEqual(socket.receive(), self.broadcast("DELETE", old_record=UPDATED))

    def test_what_was_rolled_back_is_not_told(self):
        with self.connect() as socket:
            socket.ask(self.subscribe)
            self.sql(f"BEGIN; INSERT INTO {self.table} (name) VALUES ('never'); ROLLBACK")
            self.insert(id=1, name="ever")
            self.assertEqual(socket.receive()["payload"]["record"]["name"], "ever")

    def test_who_unsubscribed_is_told_so_and_hears_nothing_more(self):
        with self.connect() as left, self.connect() as stays:
            left.ask(self.subscribe)
            stays.ask(self.subscribe)
            self.assertEqual(left.ask(self.unsubscribe), self.ack)
            self.insert(**NEW)
            self.assertEqual(stays.receive(), self.broadcast("INSERT", record=NEW))
            self.hears_nothing(left)
            self.assertEqual(left.ask(self.unsubscribe), self.ack)

    def test_several_channels_work_on_one_connection(self):
        self.sql(f"CREATE TABLE {self.schema}.items (id int PRIMARY KEY)")
        items = f"table:{self.schema}.items"
        with self.connect() as socket:
            socket.ask(self.subscribe)
            ack = socket.ask({"type": "subscribe", "channel": items})
            self.assertEqual(ack, {"type": "ack", "channel": items})
            self.sql(f"INSERT INTO {self.schema}.items VALUES (7)")
            told = socket.receive()
            self.assertEqual((told["channel"], told["payload"]["record"]), (items, {"id": 7}))
            self.insert(**NEW)
            self.assertEqual(socket.receive(), self.broadcast("INSERT", record=NEW))

    def test_a_heartbeat_is_not_answered(self):
        with self.connect() as socket:
            for _ in range(3):
                socket.send({"type": "heartbeat"})
            self.hears_nothing(socket)

    def test_what_is_wrong_is_told_as_an_error_and_the_connection_lives_on(self):
        config = {"schema": self.schema, "table": "products", "filter": "price=eq.x"}
        with self.connect() as socket:
            for frame, words in [
                ("nonsense", "JSON"),
                ({"type": "subscribe"}, "channel is required for subscribe"),
                ({"type": "unsubscribe"}, "channel is required for unsubscribe"),
                ({"type": "nothing"}, "unknown message type"),
                ({"type": "subscribe", "channel": "table:public.none"}, "there is no table"),
                ({"type": "subscribe", "config": config}, "numeric"),
            ]:
                answer = socket.ask(frame)
                self.assertEqual((set(answer), answer["type"]), ({"type", "error"}, "error"))
                self.assertIn(words, answer["error"])
            self.assertEqual(socket.ask(self.subscribe), self.ack)

    def test_a_token_in_the_query_is_taken(self):
        with self.connect("?token=YOUR_JWT_TOKEN") as socket:
            self.assertEqual(socket.ask(self.subscribe), self.ack)

    def test_the_counts_have_the_keys_of_the_page(self):
        with self.connect() as socket:
            socket.ask(self.subscribe)
            status, counts = server.shared.get_json("/api/realtime/stats")
            self.assertEqual((status, set(counts)), (200, {"connections", "channels"}))
            self.assertGreaterEqual(counts["connections"], 1)
            self.assertGreaterEqual(counts["channels"], 1)
            status, connections = server.shared.get_json("/api/v1/realtime/stats?limit=1")
            keys = {"total_connections", "connections", "limit", "offset"}
            self.assertEqual((status, set(connections)), (200, keys))

    def test_the_statements_of_the_page_switch_a_table_on_and_off(self):
        server.shared.command("sql", "install")
        listed = (
            "SELECT DISTINCT trigger_schema, event_object_table, trigger_name"
            " FROM information_schema.triggers WHERE trigger_name LIKE '%_notify_change'"
        )
        self.sql(f"SELECT enable_realtime('{self.schema}', 'products')")
        self.assertEqual(self.sql(listed), [[self.schema, "products", "products_notify_change"]])
        with self.connect() as socket:
            socket.ask(self.subscribe)
            self.insert(**NEW)
            self.assertEqual(socket.receive(), self.broadcast("INSERT", record=NEW))
            self.hears_nothing(socket)
        self.sql(f"SELECT disable_realtime('{self.schema}', 'products')")
        self.assertEqual(self.sql(listed), [])

    def test_the_sdk_hears_a_change_once_however_many_of_its_callbacks_want_it(self):
        of_table = {"schema": self.schema, "table": "products"}
        with self.connect() as socket:
            ids = []
            for more in [{"event": "INSERT"}, {"event": "*"}, {"event": "*", "filter": "price=gt.10"}]:
                config = {**of_table, **more}
                ack = socket.ask({"type": "subscribe", "channel": "any", "config": config})
                ids.append(ack["payload"].pop("subscription_id"))
                self.assertEqual(ack, {"type": "ack", "payload": {"subscribed": True, **config}})
            self.assertEqual(len(set(ids)), 3)
            self.insert(**NEW)
            told = socket.receive()
            self.assertTrue(told["payload"].pop("commit_timestamp").endswith("Z"))
            payload = {"type": "INSERT", **of_table, "record": NEW}
            self.assertEqual(told, {"type": "postgres_changes", "payload": payload})
            self.hears_nothing(socket)
            for one in ids:
                leave = {"type": "unsubscribe", "channel": "any", "subscription_id": one}
                left = {"unsubscribed": True, "subscription_id": one}
                self.assertEqual(socket.ask(leave), {"type": "ack", "payload": left})
            self.insert(id=1)
            self.hears_nothing(socket)

    def test_the_sdk_knows_who_is_there_and_what_is_said(self):
        def track(key, **state):
            payload = {"key": key, "state": state}
            return {"type": "presence", "channel": "room", "event": "track", "payload": payload}

        room = {"type": "subscribe", "channel": "room"}
        with self.connect() as ann, self.connect() as bob:
            ann.ask(room)
            ann.ask(track("ann", at=1))
            self.assertEqual(bob.ask(room)["type"], "ack")
            there = {"event": "sync", "currentPresences": {"ann": [{"at": 1}]}}
            self.assertEqual(bob.receive()["presence"], there)
            bob.ask(track("bob"))
            there = ann.receive()["presence"]["currentPresences"]
            self.assertEqual(there, {"ann": [{"at": 1}], "bob": [{}]})
            said = {"event": "cursor", "payload": {"x": 1}}
            heard = ann.ask({"type": "broadcast", "channel": "room", "messageId": "m1", **said})
            self.assertEqual(heard["broadcast"], said)
            ack = ann.receive()
            self.assertEqual((ack["messageId"], ack["status"]), ("m1", "ok"))
            self.assertEqual(bob.receive()["broadcast"], said)
            ann.send({"type": "presence", "channel": "room", "event": "untrack"})
            self.assertEqual(bob.receive()["presence"]["currentPresences"], {"bob": [{}]})

    def test_a_request_without_an_upgrade_is_told_that_it_needs_one(self):
        self.assertEqual(server.shared.get("/realtime").status, 426)
