"""A client on libtorrent 2.0, as qBittorrent and Deluge are. It seeds if the payload is there."""

import libtorrent

import driver


class Client:
    def __init__(self, arguments):
        hosts = [f"[{a}]" if ":" in a else a for a in arguments["addresses"]]
        categories = libtorrent.alert.category_t
        self.session = libtorrent.session({
            "listen_interfaces": ",".join(f"{host}:6881" for host in hosts),
            "announce_to_all_tiers": True,
            # Alerts that don't fit into their queue are lost, so none but these.
            "alert_mask": categories.tracker_notification | categories.error_notification,
            "enable_dht": False,
            "enable_lsd": False,
            "enable_upnp": False,
            "enable_natpmp": False,
        })
        parameters = libtorrent.add_torrent_params()
        parameters.ti = libtorrent.torrent_info(arguments["torrent"])
        parameters.save_path = arguments["folder"]
        parameters.flags |= libtorrent.torrent_flags.disable_pex
        # Start at once and stay: no queue decides when the torrent runs.
        parameters.flags &= ~libtorrent.torrent_flags.auto_managed
        parameters.flags &= ~libtorrent.torrent_flags.paused
        # To each tracker, under each hash: a hybrid torrent has two (BEP 52).
        hashes = parameters.ti.info_hashes()
        trackers = len(list(parameters.ti.trackers()))
        self.announces_each_time = trackers * (hashes.has_v1() + hashes.has_v2())
        self.announces = 0
        self.answers = 0
        self.torrent = self.session.add_torrent(parameters)

    def announced(self):
        return self.all_answered(self.announces_each_time)

    def complete(self):
        # A client that has become a seeder has posted its `completed` announce before.
        return self.torrent.status().is_seeding and self.all_answered(self.announces_each_time)

    def stop(self):
        enough = self.announces + self.announces_each_time
        self.torrent.pause()
        driver.until(lambda: self.all_answered(enough))
        status = self.torrent.status()
        # libtorrent does not report bytes that failed the hash check or came twice.
        useless = status.total_failed_bytes + status.total_redundant_bytes
        return {
            "uploaded": status.total_payload_upload,
            "downloaded": status.total_payload_download - useless,
        }

    def all_answered(self, enough):
        """Whether at least `enough` announces were made, and the tracker has answered them all."""
        for alert in self.session.pop_alerts():
            if isinstance(alert, libtorrent.tracker_announce_alert):
                self.announces += 1
            elif isinstance(alert, libtorrent.tracker_reply_alert):
                self.answers += 1
            elif isinstance(alert, libtorrent.torrent_error_alert):
                raise SystemExit(alert.message())
            elif isinstance(alert, libtorrent.tracker_error_alert):
                # One family's socket passes over a tracker that has an address of the other.
                if "unreachable" not in alert.message():
                    raise SystemExit(alert.message())
                self.answers += 1
        return self.announces >= enough and self.announces == self.answers


driver.run(Client)
