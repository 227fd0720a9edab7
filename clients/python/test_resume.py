"""One position goes on from one transport to the next: nothing is missed, nothing repeated."""

import unittest

from . import server


def subscribe(socket, since=None, **topic):
    """Reads the welcome, subscribes, and gives the answer."""
    welcome = socket.receive()
    assert welcome["type"] == "welcome", welcome
    answer = socket.ask({"type": "subscribe", "id": 1, "since": since, **topic})
    assert answer["type"] == "subscribed", answer
    return answer


def data_of(frames):
    return [frame["data"] for frame in frames]


class Resume(unittest.TestCase):
    def across_transports(self, parameter, topic, say):
        """Receives `say`'s five words over four connections, while one more only watches."""
        with server.shared.socket("/v1/ws") as watcher:
            subscribe(watcher, **topic)
            with server.shared.socket("/v1/ws") as socket:
                answer = subscribe(socket, **topic)
                self.assertEqual(answer["outcome"], "fresh")
                say("one")
                first = socket.receive()
                self.assertEqual((first["type"], first["data"]), ("event", "one"))
            self.assertEqual(watcher.receive(), first)

            say("two")
            say("three")
            second = watcher.receive()
            watcher.receive()
            query = f"/v1/sse?{parameter}"
            with server.Stream(server.shared.get(f"{query}&since={first['position']}")) as stream:
                subscribed, _ = stream.next_named("subscribed")
                self.assertEqual(subscribed["outcome"], "resumed")
                data, place = stream.next_named("message")
                self.assertEqual((data, place), (second, second["position"]))

            say("four")
            watcher.receive()
            headers = {"Last-Event-ID": place}
            with server.Stream(server.shared.get(query, headers)) as stream:
                data, place = stream.next_named("message")
                self.assertEqual(data["data"], "three")

            status, polled = server.shared.get_json(f"/v1/poll?{parameter}&since={place}")
            self.assertEqual(status, 200)
            self.assertNotIn("gap", polled)
            self.assertEqual(data_of(polled["events"]), ["four"])

            say("five")
            watcher.receive()
            with server.shared.socket("/v1/ws") as socket:
                answer = subscribe(socket, since=polled["cursor"], **topic)
                self.assertEqual(answer["outcome"], "resumed")
                self.assertEqual(socket.receive()["data"], "five")

    def test_a_channel_is_resumed_on_every_transport_with_one_position(self):
        self.across_transports(
            "notify=resumed",
            {"notify": "resumed"},
            lambda word: server.shared.sql(f"NOTIFY resumed, '{word}'"),
        )

    def test_a_topic_is_resumed_on_every_transport_with_one_position(self):
        def say(word):
            with server.shared.socket("/v1/ws") as speaker:
                speaker.receive()
                answer = speaker.ask({"type": "publish", "id": 1, "topic": "room:7", "data": word})
                self.assertEqual(answer["type"], "published")

        self.across_transports("topic=room:7", {"topic": "room:7"}, say)

    def test_a_position_of_another_epoch_is_told_gap_on_every_transport(self):
        since = "badbadbadbad-5"
        with server.shared.socket("/v1/ws") as socket:
            answer = subscribe(socket, since=since, topic="room:8")
            self.assertEqual((answer["outcome"], answer["reason"]), ("gap", "epoch_changed"))
        query = f"topic=room:8&since={since}"
        with server.Stream(server.shared.get(f"/v1/sse?{query}")) as stream:
            answer, _ = stream.next_named("subscribed")
            self.assertEqual((answer["outcome"], answer["reason"]), ("gap", "epoch_changed"))
        _, polled = server.shared.get_json(f"/v1/poll?{query}")
        self.assertEqual(polled["gap"]["reason"], "epoch_changed")
        self.assertEqual(polled["events"], [])

    def test_what_is_no_position_is_refused_on_every_transport(self):
        with server.shared.socket("/v1/ws") as socket:
            socket.receive()
            answer = socket.ask({"type": "subscribe", "topic": "room:9", "since": "yesterday"})
            self.assertEqual(answer["code"], "bad_position")
        for path in ["/v1/sse", "/v1/poll"]:
            status, answer = server.shared.get_json(f"{path}?topic=room:9&since=yesterday")
            self.assertEqual((status, answer["error"]["code"]), (400, "bad_position"))
