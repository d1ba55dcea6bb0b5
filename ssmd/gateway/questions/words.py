"""Words that carry no subject of their own, words for markets and their numbers, and common words near to ours."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FUNCTION_WORDS = _words(
    """
    a about above across actually again all almost along already also am among an and announce announced any
    anybody anyone anything apart are around as ask asked asking at available away back be beat beats because
    become becomes been before being below besides best bet bets betting between big bigger biggest both bout
    bouts bring but by call can cannot change changes changing check chosen come coming concerning control
    controls cost costing costs could current currently cut cuts d data date dates day days deal dealing
    decision decisions decrease decreases detail details did display do does doing done down drop dropping drops
    due during each either else enough equal equals ever every everyone everything exactly exceed exceeds except
    exclude excluded excluding existing fall falling falls fetch few fight fights find finish first fixture
    fixtures for from full further game games get gets getting give given go goes going gone gonna good got
    great greatest had happen happened happening happens has have having he help her here hey hi higher him his
    hit hits hour hours how however i if ignoring implied implies imply in increase increases increasing info
    information interested interesting into involve involving is it its itself just keep kind kinds know known
    larger largest last later latest league least left let lets level levels like likely list listing little ll
    look looked looking lose loses lot lower m made main make many match matches matter may maybe me mean
    meeting meetings might minus moment month months more most move moving much must my name names narrower near
    nearly need never new next no nominee non nor not nothing now number numbers of off offered ok okay on once
    one ones only onto open or other others ought our out outcome outcomes over overview own page part
    particular past perhaps play played playing playoff playoffs plays please possible priced pricing provide
    pull put quick quickly quite quoted race races raise raises rate rates rather re reach reaches really regard
    regarding related release released relevant report reports respect result results return right rise rises
    rising s same saw say score scores search season see seen set several shall she should show showing shows
    since sits sitting skip smaller smallest so some somebody something somewhere soon sort stay stays still
    stuff subject subjects such sure t take team teams tell than thank thanks that the their them then there
    these they thing things this those though through thru tied tighter till time times to today together
    tonight too top topic topics touch tournament toward towards trade traded trades type types under until up
    upon us use used using usually ve versus very via view vs wager wagers wanna want wanted was way we week
    weeks well were what whatever whats when where whether which while who whom whose why wider will win winner
    winning wins wish with within without won wonder wondering worth would year years yes yet you your yours
    """
)
"""Left over, they are not what a question is about."""

MARKET_WORDS = _words(
    """
    ask asks bet bets bid bids book chance chances contract contracts event events exchange fixture fixtures
    game games instrument instruments interest kalshi likelihood listing listings market markets match matches
    odds orderbook outcome outcomes prediction predictions price priced prices pricing probabilities probability
    question questions quote quotes securities security series spread spreads strike strikes ticker tickers
    trade traded trades trading turnover volume volumes wager wagers
    """
)
"""They say that a question is about markets at all."""

SPORT_WORDS = _words(
    """
    against beat beats championship coach fixture fixtures game games league match matches odds play playing
    playoff playoffs plays score scores season spread team teams tonight tournament versus vs win winning wins
    """
)
"""They say that a word such as `jets` or `heat` is a team."""

COMMON_WORDS = _words(
    """
    action active actively activist activity actor actors addition affection agreed ample another apple apples
    auction autumn baking basic batch better billion boats boots border bother brain bread breadth breath
    brother cable candle cat catch cats cause causes cellar chain chime china chine claim climax climb clinic
    cloak clock clocks close closely closer closes closet cloth clothes clothing coarse code collection contact
    contacts contrast correction counter counties country county course cream creative creature crime crypt
    cryptic culture decent departure direction dog dogs drain dream dreams driver drivers earth earths edition
    eight either election encounter ethic ethics ethnic even evens event families family famine fashion father
    feather feature features fiancee fight figure final finally finals finance finger fired folder found friend
    friends fries funny furniture future grade grading grain great greed green greet health heart hearts height
    honey horse horses hotel hotels hours house houses infection injection inspection jump later leather lecture
    letter level lever license life light lights literature little liver love magic magical manure march marked
    marker marsh match matter mature meaning measure medal medical mental metal might million miniature mission
    missions mixture modal model monday money mother motion mouse moved mover moves movie music musical nation
    national nations native nature neither night nights noted notes notion novel older opener opening openly
    opera opinion option options order orders other others panic parson parties party patch peace pearls people
    perfection person personal persons petition picture pictures piece pieces pizza pleasure poem police
    policies polite politely position pound pounds praise precedent precise presence present preset president
    pressure price prices primary prime prince princess principle private prize prizes program purple rather
    ready reason reasons recent recipe record recorder records reelection rejection relative reset residence
    resident residents right river rivers round sample saturday school schools science script scripts season
    seasons section sections selection seller sentence session sessions setter setting settings settle settler
    seven shade shame shape share shared shares shave shirt shock short shorts sight signal signature silence
    simple single song sound sparks sports sporty spots spring sprint stack stake stakes state states station
    stealth steam stellar stick sticks store stories stork storm storms story strange stream street strict
    string strong stump sugar summer sunday sunny support swearing sweater table tables teddy tenants tennis
    tents there these those three title titles today toddy tracing trade traded trader traders trades trading
    trail train training trains tramp treasure treating trial trillion trump tunic version versions vision
    visions voice voices voted wander watch water wealth weapon weight whether winter wonder words worker
    workers works world worlds worth
    """
)
"""Read as they stand, though they are a letter away from a word of ours."""

FOREIGN_WORDS = _words(
    """
    abertos abiertos amanhã aujourd avec ayer che combien cuales cuáles dans das del della delle demain der des
    die domani een el est está están gestern gli het heute hier hoje hoy hui il ist las les lo los marché
    marchés markt markten mañana mercado mercados mercati morgen märkte não oggi os para por pour precio preis
    prezzo preço prijs prix quanto que quel quelle quelles quels qué sind sobre sono sont sur são um uma und une
    van vandaag viel von welche welke wie zijn zum über
    """
)
"""Common words of other languages: a question with several of them is not answered."""
