"""KuaiRand, a video app's feeds: what users were shown, and how long they watched.

Gao et al., CIKM 2022; format: https://github.com/chongminggao/KuaiRand. CSV with headers:
``log_standard_*.csv`` (user_id, video_id, time_ms, play_time_ms, duration_ms, tab and more),
``user_features_*.csv``, ``video_features_basic_*.csv``; all ids are whole numbers. Feeds with
videos put in at random (``log_random_*.csv``) are not read.

A label is 1 where the video was watched to its end, or for 18 seconds of a longer one:
play_time_ms >= min(duration_ms, 18000), which is what the data set calls long_view. A request is a
sitting: rows of one user with no longer pause than ``pause_s``. ``tab``, where in the app, is a
feature of the impression, the ``tag`` of a video a bag of tags. Features of users are those that
the app groups them by; statistics of videos are not read, as they count what came later.
"""

from pathlib import Path

from torchrec_mm.data.public.public_data import PublicData
from torchrec_mm.data.public.tables import Tables, csv_rows, find, find_one, tables_of
from torchrec_mm.data.public.users import FeedRules, requests_of_users

LOG = dict.fromkeys(("user_id", "video_id", "time_ms"), "BIGINT") | {
    "play_time_ms": "DOUBLE",
    "duration_ms": "DOUBLE",
    "tab": "BIGINT",
}
USER = {"user_id": "BIGINT", "user_active_degree": "VARCHAR"} | dict.fromkeys(
    (
        *("follow_user_num_range", "fans_user_num_range", "friend_user_num_range"),
        "register_days_range",
    ),
    "VARCHAR",
)
VIDEO = {"video_id": "BIGINT", "author_id": "BIGINT", "upload_dt": "DATE"} | {
    **dict.fromkeys(("video_type", "upload_type", "tag"), "VARCHAR"),
    **dict.fromkeys(("video_duration", "music_type"), "DOUBLE"),
}
TAGS = "CAST(string_split(tag, ',') AS BIGINT[])"  # 39,12
LONG_MS = 18_000


def read_kuairand(folder: Path, tables: Tables, rules: FeedRules) -> PublicData:
    """``folder``: ``data/`` of one of its versions. ``tables``: to join and sort with.

    Raises:
        InputError: a missing file or column, a value of another type.
    """
    log = csv_rows(find(folder, "log_standard_*.csv"), LOG)
    users = csv_rows([find_one(folder, "user_features_*.csv")], USER)
    videos = csv_rows([find_one(folder, "video_features_basic_*.csv")], VIDEO)
    of_users = ", ".join(f"any_value({name}) AS {name}" for name in USER if name != "user_id")
    rows = tables(
        f"""SELECT user_id, time_ms // 1000 AS "timestamp", video_id AS item_id,
        CAST(max(play_time_ms >= least(duration_ms, {LONG_MS})) AS TINYINT) AS label,
        min(tab) AS candidate_tab, {of_users}
        FROM {log} LEFT JOIN {users} USING (user_id)
        GROUP BY ALL ORDER BY user_id, "timestamp", item_id"""
    )
    items = tables(
        f"""SELECT video_id AS item_id, any_value(author_id) AS author_id,
        any_value(video_type) AS video_type, any_value(upload_type) AS upload_type,
        any_value(CAST(music_type AS BIGINT)) AS music_type,
        any_value(video_duration / 1000) AS duration_s, any_value({TAGS}) AS tags,
        any_value(CAST(epoch(upload_dt) AS BIGINT)) AS created_at
        FROM {videos} FULL JOIN (SELECT DISTINCT video_id FROM {log}) USING (video_id)
        GROUP BY video_id ORDER BY item_id"""
    )
    return PublicData(
        tables_of(items),
        requests_of_users(rows, rules),
        no_click=f"no video in {folder} was watched to its end, or for {LONG_MS // 1000} seconds",
        settings={"duration_s": {"transform": "log1p"}},
    )
