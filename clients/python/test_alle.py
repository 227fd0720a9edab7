"""The frames of Alle's README, as an Alle client would send and read them."""

import json
import unittest

from . import server

# As they stand in the README.
SUBSCRIBE = {"type": "subscribe", "channel": "orders"}
UNSUBSCRIBE = {"type": "unsubscribe", "channel": "orders"}
NOTIFY = {"type": "notify", "channel": "orders", "payload": "New order #123"}
NOTIFICATION = {"type": "notification", "channel": "orders", "payload": "New order #123"}
SUBSCRIBED = {"type": "subscribed", "channel": "orders"}
UNSUBSCRIBED = {"type": "unsubscribed", "channel": "orders"}


class Alle(unittest.TestCase):
    def on_both_paths(self):
        for path in ["/", "/alle"]:
            with server.shared.socket(path) as socket:
                yield socket

    def refused(self, answer, beginning):
        self.assertEqual(set(answer), {"type", "message"})
        self.assertEqual(answer["type"], "error")
        self.assertTrue(answer["message"].startswith(beginning), answer)

    def test_the_readme_frames_are_spoken_on_both_paths(self):
        for socket in self.on_both_paths():
            self.assertEqual(socket.ask(SUBSCRIBE), SUBSCRIBED)
            self.assertEqual(socket.ask(NOTIFY), NOTIFICATION)
            self.assertEqual(socket.ask(UNSUBSCRIBE), UNSUBSCRIBED)

    def test_a_notify_by_psql_reaches_a_subscriber(self):
        for socket in self.on_both_paths():
            self.assertEqual(socket.ask(SUBSCRIBE), SUBSCRIBED)
            server.shared.sql("NOTIFY orders, 'hi'")
            said = {"type": "notification", "channel": "orders", "payload": "hi"}
            self.assertEqual(socket.receive(), said)

    def test_one_client_hears_another(self):
        with server.shared.socket("/") as listener, server.shared.socket("/alle") as speaker:
            listener.ask(SUBSCRIBE)
            speaker.send(NOTIFY)
            self.assertEqual(listener.receive(), NOTIFICATION)

    def test_nothing_comes_after_unsubscribing(self):
        for socket in self.on_both_paths():
            socket.ask(SUBSCRIBE)
            socket.ask({**SUBSCRIBE, "channel": "alerts"})
            socket.ask(UNSUBSCRIBE)
            socket.send(NOTIFY)
            socket.send({**NOTIFY, "channel": "alerts"})
            self.assertEqual(socket.receive(), {**NOTIFICATION, "channel": "alerts"})

    def test_a_repeated_subscribe_is_answered_and_delivers_once(self):
        for socket in self.on_both_paths():
            self.assertEqual(socket.ask(SUBSCRIBE), SUBSCRIBED)
            self.assertEqual(socket.ask(SUBSCRIBE), SUBSCRIBED)
            self.assertEqual(socket.ask(NOTIFY), NOTIFICATION)
            self.assertEqual(socket.ask({**NOTIFY, "payload": "2"})["payload"], "2")

    def test_unsubscribing_from_a_channel_never_subscribed_to_is_answered(self):
        for socket in self.on_both_paths():
            self.assertEqual(socket.ask(UNSUBSCRIBE), UNSUBSCRIBED)

    def test_the_case_of_a_channel_is_kept(self):
        for socket in self.on_both_paths():
            answer = socket.ask({"type": "subscribe", "channel": "Orders"})
            self.assertEqual(answer, {"type": "subscribed", "channel": "Orders"})
            # Without quotes PostgreSQL makes it lower case, and that is another channel.
            server.shared.sql("NOTIFY Orders, 'lower'")
            server.shared.sql("NOTIFY \"Orders\", 'as written'")
            said = {"type": "notification", "channel": "Orders", "payload": "as written"}
            self.assertEqual(socket.receive(), said)

    def test_names_with_quotes_and_beyond_ascii_are_channels_like_others(self):
        for socket in self.on_both_paths():
            for channel in ['say "hi"', "it's", "größe 🌊", "a;b--"]:
                socket.ask({"type": "subscribe", "channel": channel})
                said = socket.ask({"type": "notify", "channel": channel, "payload": "x"})
                expected = {"type": "notification", "channel": channel, "payload": "x"}
                self.assertEqual(said, expected)

    def test_an_empty_payload_arrives_as_one(self):
        for socket in self.on_both_paths():
            socket.ask(SUBSCRIBE)
            self.assertEqual(socket.ask({**NOTIFY, "payload": ""}), {**NOTIFICATION, "payload": ""})

    def test_a_bad_request_is_an_error_and_the_connection_lives_on(self):
        for socket in self.on_both_paths():
            for frame in [
                "not json",
                "[]",
                {"type": "shout"},
                {"type": "subscribe"},
                {"type": "subscribe", "channel": ""},
                {"type": "subscribe", "channel": "x" * 64},
                {"type": "notify", "channel": "orders", "payload": {"a": 1}},
            ]:
                self.refused(socket.ask(frame), "Error: Failed to parse client message")
            self.assertEqual(socket.ask(SUBSCRIBE), SUBSCRIBED)

    def test_a_payload_too_large_for_postgresql_is_an_error(self):
        for socket in self.on_both_paths():
            answer = socket.ask({**NOTIFY, "payload": "x" * 8_000})
            self.refused(answer, "Error: Failed to forward message to Postgres")

    def test_authenticate_without_authentication_is_an_error(self):
        for socket in self.on_both_paths():
            answer = socket.ask({"type": "authenticate", "token": "abc"})
            self.assertEqual(answer, {"type": "error", "message": "Authentication not configured"})
            self.assertEqual(socket.ask(SUBSCRIBE), SUBSCRIBED)

    def test_binary_frames_are_ignored(self):
        for socket in self.on_both_paths():
            socket.send(b"\x00\x01")
            self.assertEqual(socket.ask(SUBSCRIBE), SUBSCRIBED)

    def test_post_notify_reaches_a_websocket_and_a_stream(self):
        for path in ["/events", "/sse"]:
            with (
                server.shared.socket("/") as socket,
                server.Stream(server.shared.get(f"{path}?channels=alerts,orders")) as stream,
            ):
                socket.ask(SUBSCRIBE)
                said = {"channel": "orders", "payload": "New order #123"}
                status, body = server.shared.post("/notify", said)
                self.assertEqual((status, json.loads(body)), (200, {"success": True}))
                self.assertEqual(socket.receive(), NOTIFICATION)
                name, data, _ = stream.next()
                self.assertEqual((name, data), ("message", said))

    def test_post_notify_refuses_what_is_no_notification(self):
        for body in ["not json", {"channel": "orders"}, {"channel": "", "payload": "x"}]:
            self.assertEqual(server.shared.post("/notify", body)[0], 422, body)

    def test_a_stream_of_a_bad_channel_is_refused_in_alles_words(self):
        answer = server.shared.get(f"/events?channels=orders,{'x' * 64}")
        self.assertEqual(answer.status, 400)
        self.assertTrue(answer.read().decode().startswith("Invalid channel names: 'xxx"))
