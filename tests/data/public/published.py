"""Small public data sets, written by hand in the formats in which they are published."""

import gzip
import json
from pathlib import Path

NEWS = (
    'N1\tsports\tsoccer\tA late goal, and "that" was it\tThe cup goes north.\thttps://a/1\t[]\t[]',
    'N2\tnews\tnewsworld\tRain\t\thttps://a/2\t[{"Label": "Rain"}]\t[]',
    "N3\tsports\ttennis\tA long match\tFive sets.\thttps://a/3\t[]\t[]",
)
DEV_NEWS = (NEWS[1], "N4\tfood\trecipes\tSoup\tHot.\thttps://a/4\t[]\t[]")
TRAIN = (
    "1\tU7\t11/11/2019 9:05:58 AM\tN1 N2\tN2-0 N3-1",
    "2\tU8\t11/12/2019 12:30:00 PM\t\tN1-1 N2-0",
    "3\tU7\t11/13/2019 12:00:01 AM\tN1 N2 N3\tN1-0 N3-0 N2-1",
)
DEV = ("1\tU9\t11/15/2019 8:00:00 PM\tN2\tN4-1 N1-0", "2\tU7\t11/15/2019 9:00:00 PM\tN3\tN4-0")


def write_mind(folder: Path) -> Path:
    for split, news, behaviors in (("train", NEWS, TRAIN), ("dev", DEV_NEWS, DEV)):
        of_split = folder / f"MINDsmall_{split}"
        of_split.mkdir(parents=True)
        (of_split / "news.tsv").write_text("\n".join(news) + "\n", encoding="utf-8")
        (of_split / "behaviors.tsv").write_text("\n".join(behaviors) + "\n", encoding="utf-8")
    return folder


PAIRS = [(user, item, 1_583_378_629_000 + 1000 * item) for user in (1, 2) for item in (3, 5, 9, 12)]
TITLES = ("item,title", "3,No quotes, two commas, here", '5,"Said ""so"", twice"', "9,", "12,Ünlü")


def write_microlens(folder: Path) -> Path:
    (folder / "MicroLens-100k_covers").mkdir(parents=True)
    lines = ["user,item,timestamp", *(",".join(map(str, pair)) for pair in PAIRS)]
    (folder / "MicroLens-100k_pairs.csv").write_text("\n".join(lines))
    titles = [*TITLES, *(f"{item},Video {item}" for item in range(20, 40))]
    path = folder / "MicroLens-100k_title_en.csv"
    path.write_text("\n".join(titles), encoding="utf-8-sig")
    (folder / "MicroLens-100k_covers" / "5.jpg").write_bytes(b"jpeg")
    return folder


def review(user: str, asin: str, rating: float, second: int, bought: bool = True) -> dict:
    of_item = {"asin": f"{asin}X", "parent_asin": asin, "rating": rating}
    of_text = {"title": "Nice, really", "text": "It works.\nStill.", "images": []}
    when = {"timestamp": 1_588_687_728_923 + 1000 * second, "helpful_vote": 0}
    return of_item | of_text | when | {"user_id": user, "verified_purchase": bought}


REVIEWS = (
    review("AE3K", "B01", 5.0, 0),
    review("AE3K", "B02", 2.0, 10, bought=False),
    review("AE3K", "B01", 1.0, 20),
    review("AE3K", "B03", 4.0, 10_000),
    review("AE3K", "B04", 3.0, 20_000),
    review("AFZU", "B02", 5.0, 5),
    review("AFZU", "B04", 4.0, 9_000),
    review("AFZU", "B01", 1.0, 19_000, bought=False),
)
META = (
    {"main_category": "All Beauty", "title": "A brush", "average_rating": 4.8, "rating_number": 10}
    | {"features": ["soft"], "description": [], "price": 6.5, "images": [{"large": "https://b/1"}]}
    | {
        "videos": [],
        "store": "Brushes & Co",
        "categories": ["Hair", "Tools"],
        "details": {"Colour": "red"},
    }
    | {"parent_asin": "B01", "bought_together": None},
    {"main_category": None, "title": "A comb", "price": "from 3.99", "store": None}
    | {"parent_asin": "B02"},
    {"main_category": "All Beauty", "title": "Soap", "price": 3.25, "store": "Soaps"}
    | {"categories": []}
    | {"parent_asin": "B03"},
)


def write_amazon(folder: Path) -> Path:
    (folder / "pictures").mkdir(parents=True)
    for name, rows in (("All_Beauty", REVIEWS), ("meta_All_Beauty", META)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (folder / "pictures" / "B01.jpg").write_bytes(b"jpeg")
    return folder


LOG = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,"
    "is_hate,long_view,play_time_ms,duration_ms,profile_stay_time,comment_stay_time,"
    "is_profile_enter,is_rand,tab"
)
USERS = (
    "user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,"
    "follow_user_num,follow_user_num_range,fans_user_num,fans_user_num_range,friend_user_num,"
    "friend_user_num_range,register_days,register_days_range,onehot_feat0",
    '0,full_active,0,0,1,5,"(0,10]",312,"[100,1k)",0,0,3624,730+,1',
    "1,UNKNOWN,0,0,0,0,0,0,0,0,0,20,15-30,0",
)
VIDEOS = (
    "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,"
    "server_width,server_height,music_id,music_type,tag",
    '10,123,NORMAL,2022-04-10,LongImport,0.0,87433.0,720.0,1280.0,9155697141,9.0,"39,12"',
    "20,456,AD,2022-04-09,Kmovie,0.0,,720.0,1280.0,6355810746,9.0,2",
    "30,789,NORMAL,2022-04-09,ShortImport,0.0,9233.0,720.0,1280.0,6618412736,4.0,",
)
SHOWN = [  # user, video, second, played, long
    (0, 10, 0, 18_000, 87_433),
    (0, 20, 60, 17_999, 65_400),
    (0, 30, 4_000, 9_233, 9_233),
    (0, 20, 8_000, 0, 65_400),
    (1, 30, 10, 9_000, 9_233),
    (1, 10, 20, 90_000, 87_433),
    (1, 40, 9_000, 20_000, 30_000),
    (1, 20, 20_000, 65_400, 65_400),
]


def write_kuairand(folder: Path) -> Path:
    folder.mkdir(parents=True)
    lines = [
        f"{user},{video},20220411,1900,{1_649_675_512_388 + 1000 * second},0,0,0,0,0,0,0,"
        f"{played},{long},0,0,0,0,{user}"
        for user, video, second, played, long in SHOWN
    ]
    for at, name in enumerate(("4_08_to_4_21", "4_22_to_5_08")):
        text = "\n".join([LOG, *lines[at::2]]) + "\n"
        (folder / f"log_standard_{name}_pure.csv").write_text(text)
    (folder / "log_random_4_22_to_5_08_pure.csv").write_text(f"{LOG}\n")
    (folder / "user_features_pure.csv").write_text("\n".join(USERS) + "\n")
    (folder / "video_features_basic_pure.csv").write_text("\n".join(VIDEOS) + "\n")
    return folder


def criteo_line(row: int) -> str:
    """A click every third row; I2 may be below 0, I3 and C3 are missing in odd rows."""
    numbers = [str(row * place) for place in range(1, 14)]
    numbers[1] = str(row - 3)
    words = [f"{(row % 4) * 16**7 + place:08x}" for place in range(26)]
    if row % 2:
        numbers[2] = words[2] = ""
    return "\t".join([str(int(row % 3 == 0)), *numbers, *words])


def write_criteo(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "train.txt").write_text("".join(criteo_line(row) + "\n" for row in range(20)))
    return folder
