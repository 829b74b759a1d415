"""The Russian of notices, of answers in the chat and of the verdict. Keys are the English sentences.

``tests/live/test_language.py`` reads the sources for what can be said and fails for a sentence without a
Russian one.
"""

from __future__ import annotations

_HOLDS = {
    "{reason}; until {when}": "{reason}; до: {when}",
    "the next trading window opens": "откроется следующее торговое окно",
    "the flag file is removed": "файл-флаг будет убран",
    "exchange midnight": "полночь по биржевому времени",
    "the cool-down is over": "пауза закончится",
    "a person resumes": "возобновит человек",
    "the model is reloaded": "модель будет перезагружена",
    "a book arrives": "придёт стакан",
    "the channel is up": "канал заработает",
    "orders and positions agree with the broker": "заявки и позиции сойдутся с брокером",
    "the next reconciliation agrees, or a person resumes": "сверка сойдётся или возобновит человек",
    "a book passes every check": "стакан пройдёт все проверки",
    "the exchange opens trading": "биржа откроет торги",
    "a bundle that is still valid is loaded": "загрузят модель с непросроченной датой",
    "the rotation finds it among the most tradable again": "ротация снова сочтёт его одним из лучших",
    "the pause is over, or a person resumes": "пауза закончится или возобновит человек",
    "the broker says what became of the order": "брокер скажет, что стало с заявкой",
    "a reconciliation agrees, or a person resumes": "сверка сойдётся или возобновит человек",
    "the next comparison of a day agrees, or a person resumes":
        "следующая сверка дня сойдётся или возобновит человек",
    "the process is started again": "процесс запустят снова",
    "the window opens at {time}": "окно откроется {time!s}",
}  # fmt: skip
_SESSION = {
    "outside the trading window": "вне торгового окна",
    "the trading window is open": "торговое окно открыто",
    "trading is suspended; the next window opens at {time} exchange time":
        "торговля приостановлена; следующее окно откроется {time!s} по биржевому времени",
    "the process is asked to stop": "процесс просят остановиться",
    "the recording ends": "запись кончается",
    "{signal} received": "получен {signal!s}",
    "the rotation": "ротация",
    "trading is open": "торги открыты",
    "not available for trading": "инструмент недоступен для торгов",
    "waiting until {time} {zone} ({seconds} s)": "жду до {time!s} {zone!s} ({seconds!s} с)",
    "the checkpoint is from ahead of the clock: waiting until that has caught up ({seconds} s)":
        "чекпойнт новее часов: жду, пока они его догонят ({seconds!s} с)",
    "going on from the checkpoint": "продолжаю с чекпойнта",
    "market time was {seconds} s behind the broker's": "рыночное время отставало от брокера на {seconds!s} с",
    "the most tradable by spread, depth and turnover": "лучшие по спреду, глубине и обороту",
}  # fmt: skip
_PEOPLE = {
    "no reason given": "причина не указана",
    "the flag file is gone": "файла-флага больше нет",
    "removed by itself after {minutes} minutes": "снят сам через {minutes!s} мин",
    "resumed by hand: {why}": "возобновлено вручную: {why}",
    "resumed": "возобновлено",
    "halted from the chat": "остановлено из чата",
    "the flag file cannot be read: {error}": "файл-флаг не читается: {error!s}",
    "the runner failed ({reason}); look at positions, then `live-runner resume`":
        "сбой программы ({reason}); посмотрите позиции, затем `live-runner resume`",
}  # fmt: skip
_LINK = {
    "no book for {n} intervals in a row; last connection error: {error}":
        "нет стакана {n!s} интервалов подряд; последняя ошибка связи: {error}",
    "no connection error was reported": "об ошибках связи не сообщалось",
    "a book arrived": "стакан пришёл",
    "channel {name} is down": "канал {name!s} не работает",
    "channel {name} is up": "канал {name!s} работает",
    "switching to {name}": "перехожу на {name!s}",
    "reconnected over {name}": "связь восстановлена через {name!s}",
    "reconnected: the next book must pass every check":
        "связь восстановлена: следующий стакан должен пройти все проверки",
    "the book passes every check": "стакан прошёл все проверки",
    "the driver distrusts it": "источник ему не доверяет",
    "sound books arrive again": "снова приходят исправные стаканы",
    "back on the primary channel": "снова на основном канале",
    "on the {name} channel; last error: {error}": "на канале {name!s}; последняя ошибка: {error}",
    "{words} ({n} ms)": "{words} ({n!s} мс)",
    "the switch took {ms} ms, {limit} ms are allowed":
        "переключение заняло {ms!s} мс, допустимо {limit!s} мс",
    "{name} stream: {why}": "поток {name!s}: {why}",
    "{ticker} is mute: no book for {s} s while the broker's book moved":
        "{ticker!s} молчит: нет стакана {s!s} с, а у брокера он менялся",
    "no message for {s} s: the stream is mute": "нет сообщений {s!s} с: поток молчит",
    "the connection was replaced": "соединение заменено",
    "the server closed the stream": "сервер закрыл поток",
    "subscribing failed: {error}": "подписаться не удалось: {error!s}",
    "subscription to {what} of {ticker} refused: {name}":
        "в подписке на {what!s} {ticker!s} отказано: {name!s}",
    "subscription to order states refused: {error}": "в подписке на заявки отказано: {error!s}",
    "INCONSISTENT": "стакан несогласован", "ONE_SIDED": "в стакане одна сторона",
    "RAGGED": "уровни без объёмов", "NOT_POSITIVE": "объём не положителен",
    "OUT_OF_RANGE": "число не помещается в 32 бита", "CROSSED": "стакан перекрещён",
    "UNSORTED": "уровни не по порядку", "BACKWARD_TIME": "время пошло назад", "STALE": "стакан устарел",
    "IMPLAUSIBLE_MOVE": "неправдоподобный скачок цены", "IMPLAUSIBLE": "неправдоподобный скачок цены",
}  # fmt: skip
_ORDERS = {
    "the broker's orders and positions are not read yet": "заявки и позиции у брокера ещё не прочитаны",
    "orders and positions were read from the broker": "заявки и позиции прочитаны у брокера",
    "orders and positions agree": "заявки и позиции сошлись",
    "an order was still open when the broker was read": "при чтении у брокера заявка была ещё открыта",
    "our position equals the broker's": "наша позиция равна позиции у брокера",
    "our books equal the broker's": "наш учёт сошёлся с брокером",
    "the broker holds {broker} lots of {ticker}, our books say {ours}":
        "у брокера {broker!s} лотов {ticker!s}, по нашему учёту {ours!s}",
    "order {id}: no word of its outcome": "заявка {id!s}: неизвестно, чем кончилась",
    "order {id}: deals are missing": "заявка {id!s}: не хватает сделок",
    "order {id} in {ticker} is unknown after {n} queries":
        "заявка {id!s} ({ticker!s}) неизвестна после {n!s} запросов",
    "look at the broker's own terminal": "посмотрите в терминале самого брокера",
    "absent at the broker": "у брокера её нет", "no answer in time": "нет ответа в срок",
    "{day}: {n} differences: {why}": "{day!s}: расхождений {n!s}: {why}",
    "the broker has deal {id}: {deal}, our books do not": "у брокера есть сделка {id!s}: {deal}, у нас нет",
    "our books have deal {id}: {deal}, the broker does not":
        "у нас есть сделка {id!s}: {deal}, у брокера нет",
    "deal {id} in {ticker}: the broker says {theirs}, our books {ours}":
        "сделка {id!s} ({ticker!s}): у брокера {theirs}, у нас {ours}",
    "operation {id} in {ticker}: the broker charged {theirs} nano-roubles, by our tariff it is {ours}":
        "операция {id!s} ({ticker!s}): брокер взял {theirs!s} нанорублей, по нашему тарифу {ours!s}",
    "check broker.tariff": "проверьте broker.tariff",
    "{difference} (and {n} more)": "{difference} (и ещё {n!s})",
    "bought {lots} at {price} ticks {ticker}": "куплено {lots!s} по {price!s} тиков {ticker!s}",
    "sold {lots} at {price} ticks {ticker}": "продано {lots!s} по {price!s} тиков {ticker!s}",
    "bought {lots} at {price} ticks": "куплено {lots!s} по {price!s} тиков",
    "sold {lots} at {price} ticks": "продано {lots!s} по {price!s} тиков",
    "the deals of {day} are the broker's": "сделки за {day!s} те же, что у брокера",
    "the broker answered": "брокер ответил",
    "order {id} cannot go from {before} to {after} ({executed} executed, {booked} booked of {lots})":
        "заявка {id!s} не может перейти из {before!s} в {after!s} (исполнено {executed!s}, учтено {booked!s} "
        "из {lots!s})",
    "{n} orders rejected in a row, the last one: {why}": "{n!s} заявок отклонено подряд, последняя: {why}",
    "the account's cash changed by {amount} without a deal of ours":
        "деньги на счёте изменились на {amount} без нашей сделки",
    "bought {lots} at {price} ticks ({why})": "куплено {lots!s} по {price!s} тиков ({why})",
    "sold {lots} at {price} ticks ({why})": "продано {lots!s} по {price!s} тиков ({why})",
    "SIGNAL {source}": "сигнал {source}", "ensemble": "ансамбля", "fallback": "запасного правила",
    "HORIZON": "срок прогноза вышел", "STOP": "стоп", "EXCHANGE_STOP": "стоп у брокера",
    "MAX_AGE": "позиция слишком стара", "NO_SCORES": "нет оценок модели", "UNPLANNED": "без плана",
    "HOLD_{name}": "запрет {name!s}",
    "the market is beyond {price} ticks": "рынок за уровнем {price!s} тиков",
}  # fmt: skip
_RISK = {
    "{n} losing trades in a row": "{n!s} убыточных сделок подряд",
    "the day's result is {now}, the limit is {limit}": "результат дня {now}, предел {limit}",
    "{n} RUB": "{n!s} ₽",
    "a new exchange day": "новый биржевой день",
    "the pause is over": "пауза закончилась",
    "volatility index {value} is above {limit}": "индекс волатильности {value!s} выше {limit!s}",
    "{stage} was over {limit} us {n} times in a row": "этап {stage!s} дольше {limit!s} мкс {n!s} раз подряд",
    "{stage} took {us} us, limit {limit} us": "этап {stage!s} занял {us!s} мкс, предел {limit!s} мкс",
    "a spread of {bps} bps, the limit is {limit}": "спред {bps!s} б.п., предел {limit!s}",
    "normal again": "снова в норме",
    "{why}; the emergency stop cannot see it": "{why}; аварийная остановка его не видит",
    "{name} has no last price": "у {name!s} нет последней цены",
    "{reason}; trading stopped": "{reason}; торговля остановлена",
}  # fmt: skip
_MODEL = {
    "now trading bundle {hash}": "теперь торгует модель {hash!s}",
    "the model was reloaded": "модель перезагружена",
    "the new bundle is valid": "у новой модели срок не вышел",
    "another model was loaded while the runner was down": "пока программа стояла, загрузили другую модель",
    "bundle {hash} is past its valid_until": "срок модели {hash!s} вышел",
    "{metric} is {n}": "{metric!s} равно {n!s}",
    "imbalance {imbalance}, volatility {volatility} bps":
        "перекос объёмов {imbalance!s}, волатильность {volatility!s} б.п.",
    "the quota of {n} an hour is used up": "квота {n!s} в час исчерпана",
    "{reason}; trading goes on": "{reason}; торговля продолжается",
    "{error}; inference fails until the model is reloaded":
        "{error}; модель не считается, пока её не перезагрузят",
    "GPU_FAILOVER mode=cpu: {reason}": "GPU_FAILOVER mode=cpu: модель считается на процессоре: {reason!s}",
}  # fmt: skip
_MACHINE = {
    "market data is being dropped, this machine is too slow":
        "рыночные данные теряются, машина не успевает",
    "{name}: {time} UTC, {n} files, {mb} MB in {folder}":
        "{name!s}: {time!s} UTC, файлов {n!s}, {mb!s} МБ в {folder!s}",
    "the last copy took over {seconds} s": "последняя копия заняла больше {seconds!s} с",
    "({n} more times in {seconds} s)": "(ещё {n!s} раз за {seconds!s} с)",
    "({n} more time in {seconds} s)": "(ещё {n!s} раз за {seconds!s} с)",
    "and {n} more during the quiet hours": "и ещё {n!s} за тихие часы",
}  # fmt: skip
_REPORT = {
    "REPORT {time} UTC{mark}: session net {net} RUB":
        "REPORT {time!s} UTC{mark!s}: за сессию чистыми {net!s} ₽",
    "REPORT {time} UTC: session net {net} RUB": "REPORT {time!s} UTC: за сессию чистыми {net!s} ₽",
    "realised {net}, fees {fees}, {fills} fills, {won} of {trips} round trips won":
        "зафиксировано {net!s}, комиссии {fees!s}, сделок {fills!s}, прибыльных кругов {won!s} из {trips!s}",
    "{n} signals, confidence {sure} {trend}": "сигналов {n!s}, уверенность {sure!s} ({trend})",
    "{n} signals": "сигналов {n!s}",
    "rising": "растёт", "falling": "падает", "steady": "ровная", "unknown": "сравнить не с чем",
    "no figures: {why}": "цифр нет: {why!s}",
    "{held}; holds {holds}": "{held}; запреты: {holds}",
    "flat": "позиций нет", "none": "нет",
    "audit {head}": "аудит {head!s}",
}  # fmt: skip
_VERDICT = {
    "Outside trading hours": "Вне торговых часов",
    "Halted by hand": "Остановлено вручную",
    "Resume when the reason is gone": "Возобновите, когда причина исчезнет",
    "The day's loss limit is reached": "Дневной предел убытка достигнут",
    "Nothing until midnight; look at the trades of today":
        "До полуночи ничего; посмотрите сегодняшние сделки",
    "A pause after losses": "Пауза после убытков",
    "It ends by itself; look at the last trades": "Кончится сама; посмотрите последние сделки",
    "The market is too volatile": "Рынок слишком волатилен",
    "Resume by hand when the index is back under its limit":
        "Возобновите вручную, когда индекс вернётся под предел",
    "The market no longer looks like the training data": "Рынок больше не похож на обучающие данные",
    "Load another model": "Загрузите другую модель",
    "This machine is too slow": "Машина не успевает",
    "Find what slows it down, then resume by hand": "Найдите, что её тормозит, затем возобновите вручную",
    "No market data comes": "Рыночные данные не приходят",
    "Look at the connection and at the broker's state": "Проверьте связь и состояние брокера",
    "No connection to the broker": "Нет связи с брокером",
    "Check the network; use the broker's terminal": "Проверьте сеть; пользуйтесь терминалом брокера",
    "Not compared with the broker yet": "Ещё не сверено с брокером",
    "Look at the last error below": "Посмотрите последнюю ошибку ниже",
    "The broker's position is not ours": "Позиция у брокера не та, что у нас",
    "Compare with the broker's terminal before resuming": "Сверьте с терминалом брокера, потом возобновляйте",
    "A book is not believed": "Стакану нет доверия",
    "It lifts with the first good book": "Снимется с первым исправным стаканом",
    "The exchange does not trade it": "Биржа им не торгует",
    "The model is past its date": "Срок модели вышел",
    "Promote a newer bundle": "Выпустите модель поновее",
    "Rotated out: others are more tradable": "Выведен ротацией: другие ликвиднее",
    "The broker rejects our orders": "Брокер отклоняет заявки",
    "Read the reasons under the last orders": "Прочтите причины у последних заявок",
    "Nobody knows what became of an order": "Неизвестно, что стало с заявкой",
    "Look for it in the broker's terminal": "Найдите её в терминале брокера",
    "An order is in an impossible state": "Заявка в невозможном состоянии",
    "Compare with the broker's terminal, then resume": "Сверьте с терминалом брокера, затем возобновите",
    "The day's deals are not the broker's": "Сделки дня не те, что у брокера",
    "Compare with the broker's report, then resume": "Сверьте с отчётом брокера, затем возобновите",
    "The runner is stopping": "Программа останавливается",
    "Watch the position in the broker's terminal": "Следите за позицией в терминале брокера",
    "Not trading: {why}": "Не торгует: {why}",
    "{why}, and {lots} cannot be closed from here": "{why}, и {lots} отсюда не закрыть",
    "{words} ({scope})": "{words} ({scope!s})",
    "Until {when}": "До: {when}", "And {n} more": "И ещё {n!s}",
    "Being halted by hand": "Останавливают вручную",
    "Warming up": "Разогрев",
    "The features need two minutes of books before the first score":
        "До первой оценки признакам нужно две минуты стаканов",
    "All is well": "Всё в порядке",
    "Trading {list}; {lots}.": "В торгах {list!s}; {lots}.",
    "Starting": "Запуск",
    "no position is open": "открытых позиций нет",
    "No position is open": "Открытых позиций нет",
    "{n} lots of {ticker}": "{n!s} лотов {ticker!s}",
    "{n} instruments": "инструментов: {n!s}",
    "The runner has stopped": "Программа остановлена",
    "{reason}, {age} ago": "{reason}, {age} назад",
    "{lots} at the broker, and nobody watches it": "{lots} у брокера, и никто за этим не следит",
    "The runner is NOT RUNNING": "Программа НЕ РАБОТАЕТ",
    "Last sign of life {age} ago": "Последний признак жизни {age} назад",
    "Last sign of life {age} ago: {failure}": "Последний признак жизни {age} назад: {failure}",
    "Then: {lots}": "Тогда: {lots}",
    "Look at the broker's terminal, then start it again: it takes orders and positions over.":
        "Посмотрите в терминале брокера и запустите снова: заявки и позиции будут подхвачены.",
    "Old data for {tickers}": "Старые данные: {tickers!s}",
    "The last book is {age} old.": "Последнему стакану {age}.",
    "A quiet market, or a broken stream: compare with the broker's terminal.":
        "Тихий рынок или оборванный поток: сравните с терминалом брокера.",
    "The database does not take writes": "База данных не принимает записи",
    "Look at the disk": "Проверьте диск",
    "Close to the day's loss limit": "Близко к дневному пределу убытка",
    "Realised {now} of {limit} RUB.": "Зафиксировано {now!s} из {limit!s} ₽.",
    "Simplified mode": "Упрощённый режим",
    "In use: {used}. Fewer instruments, one model, a lower rate.":
        "Занято: {used!s}. Меньше инструментов, одна модель, реже расчёт.",
    "Find what takes the machine's resources": "Найдите, что занимает ресурсы машины",
    "Market data was dropped": "Рыночные данные терялись",
    "{n} events found the queue full.": "{n!s} событий застали очередь полной.",
    "This machine is too slow for so many instruments": "Для стольких инструментов машина слишком медленна",
    "The market drifts away from the training data": "Рынок уходит от обучающих данных",
    "Notifications do not get through": "Уведомления не доходят",
    "No runner has worked here yet": "Здесь программа ещё не работала",
    "{n} s": "{n!s} с", "{n} min": "{n!s} мин", "{n} h": "{n!s} ч",
}  # fmt: skip
_CHAT = {
    "/status what it does and what holds it": "/status что делает и что держит",
    "/pnl the result so far": "/pnl результат",
    "/halt REASON stop sending orders": "/halt ПРИЧИНА остановить отправку заявок",
    "/resume remove the halt and what a person may lift (asks for a code)":
        "/resume снять остановку и запреты, снимаемые человеком (спросит код)",
    "HALTED: {why}. No order is sent until /resume; open positions are not watched.":
        "ОСТАНОВЛЕНО: {why}. Заявки не отправляются до /resume; за открытыми позициями никто не следит.",
    "No resume waits for a code; send /resume first.": "Кода никто не ждёт; сначала отправьте /resume.",
    "That is not the code.": "Код не тот.",
    "Three wrong codes; send /resume again.": "Три неверных кода; отправьте /resume снова.",
    "there is nothing that a person could lift": "человеку снимать нечего",
    "This lifts {what}. Positions and the broker's terminal looked at? "
    "Then send /resume {code} within {s} s.":
        "Будет снято: {what}. Позиции и терминал брокера посмотрели? "
        "Тогда отправьте /resume {code!s} в течение {s!s} с.",
    "the halt “{why}”": "остановка «{why}»",
    "the halt is removed": "остановка снята",
    "the runner is asked to lift {names}": "программу просят снять {names!s}",
    "that changed in the meantime ({now}); look again":
        "пока вы думали, изменилось ({now}); посмотрите снова",
    "the halt now says: {why}": "остановка теперь: {why}", "nobody halts any more": "остановки больше нет",
    "already halted: {why}": "уже остановлено: {why}",
    "no person can lift {names}": "человек не может снять {names!s}",
    "a reason is needed: it goes into the audit and to everyone who is notified":
        "нужна причина: она попадёт в аудит и ко всем, кого уведомляют",
    "cannot write {file}: {error}; use the broker's terminal":
        "не могу записать {file!s}: {error!s}; пользуйтесь терминалом брокера",
    "cannot change the files of the runner: {error}": "не могу изменить файлы программы: {error!s}",
    "no runner has worked in {folder} yet; start one with `live-runner --model prod`":
        "в {folder!s} программа ещё не работала; запустите `live-runner --model prod`",
    "{held}; net {net} RUB": "{held}; чистыми {net!s} ₽",
    "{mode}, model {model}": "{mode!s}, модель {model!s}",
    "{name}: {reason}; until {when}": "{name!s}: {reason}; до: {when}",
    "net {net} RUB (gross {gross}, fees {fees})": "чистыми {net!s} ₽ (грязными {gross!s}, комиссии {fees!s})",
    "realised today {now}, the day's limit is {limit}": "за день зафиксировано {now!s}, предел дня {limit!s}",
    "{ticker} {lots} lots, open {net}": "{ticker!s} {lots!s} лотов, открытый результат {net!s}",
    "{fills} fills, {orders} orders, {signals} signals":
        "сделок {fills!s}, заявок {orders!s}, сигналов {signals!s}",
    "SIMULATED: not evidence of an edge": "SIMULATED: прибыли это не доказывает",
}  # fmt: skip

PHRASES: dict[str, str] = {
    **_HOLDS, **_SESSION, **_PEOPLE, **_LINK, **_ORDERS, **_RISK, **_MODEL, **_MACHINE, **_REPORT, **_VERDICT,
    **_CHAT,
}  # fmt: skip
"""English pattern -> Russian template. ``{x}`` is translated in its turn, ``{x!s}`` stays as it is."""
