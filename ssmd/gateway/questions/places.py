"""Places and teams that questions name, and how titles and series write them."""

from typing import NamedTuple


class Place(NamedTuple):
    """A city or state: how people and titles write it, and the codes that end its weather series."""

    name: str
    says: tuple[str, ...]
    codes: tuple[str, ...] = ()


class Team(NamedTuple):
    """A team: `city` is how titles of games usually call it. `everyday`: its name is a common word as well."""

    name: str
    city: str
    league: str
    everyday: bool


def _places(text: str) -> tuple[Place, ...]:
    found = []
    for line in text.strip().splitlines():
        names, _, codes = line.partition(":")
        first, *others = (name.strip() for name in names.split(","))
        found.append(Place(first, (first.lower(), *others), tuple(codes.split())))
    return tuple(found)


_LISTED = _places("""
New York, nyc, new york city, ny, central park, manhattan: NY NYC
Los Angeles, la, l a, lax: LAX LA
Chicago, chi, midway: CHI
Miami, mia: MIA
Austin: AUS
Denver: DEN
Philadelphia, philly: PHIL
Houston: HOU
San Francisco, sf, sfo, bay area: SFO SF
Washington DC, washington d c, dc, d c: DC
Seattle: SEA
Las Vegas, vegas: LV
New Orleans, nola: NOLA
Atlanta: ATL
Boston: BOS
Phoenix: PHX
Dallas: DAL
Minneapolis: MIN
Oklahoma City, okc: OKC
San Antonio: SATX
Salt Lake City: SLC
Detroit: DET
St. Louis, saint louis: STL
Tampa: TB
Orlando: ORL
Jacksonville: JACKFL
Nashville: BNA
London: LON
Paris: PAR
Tokyo: TYO
California
Texas
Florida
Georgia
Pennsylvania
Michigan
Wisconsin
Arizona
Nevada
North Carolina
South Carolina
Ohio
Virginia
New Jersey
Maine
Iowa
Alaska
Hawaii
Colorado
""")


def _teams(league: str, text: str) -> list[Team]:
    found = []
    for part in text.replace("\n", " ").split(";"):
        city, _, name = part.strip().partition(":")
        found.append(Team(name.strip("? "), city.strip(), league, name.endswith("?")))
    return found


TEAMS = (
    *_teams("NFL", """Arizona:Cardinals?;Atlanta:Falcons?;Baltimore:Ravens?;Buffalo:Bills?;Carolina:Panthers?;
Chicago:Bears?;Cincinnati:Bengals;Cleveland:Browns?;Dallas:Cowboys?;Denver:Broncos;Detroit:Lions?;Green Bay:Packers;
Houston:Texans;Indianapolis:Colts;Jacksonville:Jaguars?;Kansas City:Chiefs?;Las Vegas:Raiders?;Los Angeles:Chargers?;
Los Angeles:Rams?;Miami:Dolphins?;Minnesota:Vikings?;New England:Patriots?;New Orleans:Saints?;New York:Giants?;
New York:Jets?;Philadelphia:Eagles?;Pittsburgh:Steelers;San Francisco:49ers;Seattle:Seahawks;Tampa Bay:Buccaneers;
Tennessee:Titans?;Washington:Commanders?"""),
    *_teams("NBA", """Atlanta:Hawks?;Boston:Celtics;Brooklyn:Nets?;Charlotte:Hornets?;Chicago:Bulls?;
Cleveland:Cavaliers;Cleveland:Cavs;Dallas:Mavericks;Dallas:Mavs;Denver:Nuggets?;Detroit:Pistons;
Golden State:Warriors?;Houston:Rockets?;Indiana:Pacers;Los Angeles:Clippers;Los Angeles:Lakers;Memphis:Grizzlies;
Miami:Heat?;Milwaukee:Bucks?;Minnesota:Timberwolves;New Orleans:Pelicans?;New York:Knicks;Oklahoma City:Thunder?;
Orlando:Magic?;Philadelphia:76ers;Philadelphia:Sixers;Phoenix:Suns;Portland:Trail Blazers;Sacramento:Kings?;
San Antonio:Spurs?;Toronto:Raptors;Utah:Jazz?;Washington:Wizards?"""),
    *_teams("MLB", """Arizona:Diamondbacks;Atlanta:Braves?;Baltimore:Orioles;Boston:Red Sox;Chicago:Cubs;
Chicago:White Sox;Cincinnati:Reds?;Cleveland:Guardians?;Colorado:Rockies;Detroit:Tigers?;Houston:Astros;
Kansas City:Royals?;Los Angeles:Angels?;Los Angeles:Dodgers;Miami:Marlins;Milwaukee:Brewers;Minnesota:Twins?;
New York:Mets;New York:Yankees;Philadelphia:Phillies;Pittsburgh:Pirates?;San Diego:Padres;San Francisco:Giants?;
Seattle:Mariners;St. Louis:Cardinals?;Tampa Bay:Rays?;Texas:Rangers?;Toronto:Blue Jays;Washington:Nationals?"""),
    *_teams("NHL", """Anaheim:Ducks?;Boston:Bruins;Buffalo:Sabres;Calgary:Flames?;Carolina:Hurricanes?;
Chicago:Blackhawks;Colorado:Avalanche?;Columbus:Blue Jackets;Dallas:Stars?;Detroit:Red Wings;Edmonton:Oilers;
Florida:Panthers?;Los Angeles:Kings?;Minnesota:Wild?;Montreal:Canadiens;Nashville:Predators?;New Jersey:Devils?;
New York:Islanders?;New York:Rangers?;Ottawa:Senators?;Philadelphia:Flyers;Pittsburgh:Penguins?;San Jose:Sharks?;
Seattle:Kraken;St. Louis:Blues?;Tampa Bay:Lightning?;Toronto:Maple Leafs;Vancouver:Canucks;
Vegas:Golden Knights;Washington:Capitals?;Winnipeg:Jets?"""),
    *_teams("EPL", """:Arsenal;:Aston Villa;:Bournemouth;:Brentford;:Brighton;:Chelsea;:Crystal Palace;:Everton;
:Fulham;:Leeds United;:Liverpool;:Manchester City;:Man City;:Manchester United;:Man United;:Man Utd;:Newcastle;
:Nottingham Forest;:Tottenham;:West Ham;:Wolverhampton"""),
)  # fmt: skip

_PLACED = {place.name for place in _LISTED}

PLACES = (
    *_LISTED,
    *(Place(city, (city.lower(),)) for city in sorted({team.city for team in TEAMS}) if city and city not in _PLACED),
)
