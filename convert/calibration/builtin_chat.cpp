// Conversations, some with the marks of ChatML, a few in other languages.
// The texts keep their long lines, because line ends are part of them.

#include "convert/calibration/builtin_texts.h"

namespace llmq::convert {
namespace {

constexpr std::string_view kTexts[] = {
    R"t(<|im_start|>system
You are a helpful assistant.<|im_end|>
<|im_start|>user
What's the difference between a crocodile and an alligator?<|im_end|>
<|im_start|>assistant
The quickest clue is the snout: an alligator's is broad and rounded like a U, a crocodile's is narrower and more like a V. When a crocodile closes its mouth, the fourth tooth of the lower jaw stays visible; an alligator's is hidden. Crocodiles also tolerate salt water better.<|im_end|>
<|im_start|>user
And which one is more dangerous?<|im_end|>
<|im_start|>assistant
Large crocodiles, by a wide margin. Either way, keep your distance from the water's edge where they live.<|im_end|>)t",
    R"t(User: 你好，帮我想一个周末带孩子去的地方，最好不要太远。
Assistant: 您好！孩子多大？喜欢动物、运动还是动手做东西？您大概住在城市的哪一片？
User: 六岁，男孩，特别喜欢火车。我们住在北城。
Assistant: 那可以考虑铁路博物馆：有可以爬上去的蒸汽机车，周末还有微型小火车。上午人少，建议十点以前到；里面不能带外食，但门口有面馆。如果下雨也不受影响，大部分展厅在室内。)t",
    R"t(User: Can you give me five names for a bakery that opens at 4 a.m.?
Assistant: 1. First Light Loaves
2. The Four O'Clock Crust
3. Before the Birds
4. Moon & Crumb
5. Early Rye-ser
User: I love number 3. A slogan for it?
Assistant: "Before the Birds – fresh while the town still sleeps.")t",
    R"t(<|im_start|>system
You are a careful programming assistant. Answer briefly.<|im_end|>
<|im_start|>user
How do I undo my last git commit but keep the changes?<|im_end|>
<|im_start|>assistant
Use `git reset --soft HEAD~1`. The commit disappears from the branch, and its changes stay staged. With `--mixed` (the default) they stay in the working tree but unstaged. If you have already pushed the commit and others may have pulled it, prefer `git revert HEAD`, which adds a new commit instead of rewriting history.<|im_end|>)t",
    R"t(Human: I feel like I'm bad at everything lately.
Assistant: That sounds exhausting. When several things go wrong in a row, it's easy for them to merge into one big verdict about yourself. Could you tell me about one of them, the most recent one perhaps?
Human: I forgot my sister's birthday. Completely.
Assistant: That stings, especially because you care. Forgetting a date doesn't measure how much she means to you; what you do next says more. A call today, with a plain "I forgot, I'm sorry, and I'd like to take you out", is worth more than a perfect card on the right day. Would that feel doable?)t",
    R"t(<|im_start|>user
请用通俗的语言解释一下什么是区块链。<|im_end|>
<|im_start|>assistant
可以把区块链想象成一个全班同学每人都抄了一份的记账本。谁和谁交易，大家同时记一笔，每一页的开头还写着上一页的“指纹”。有人想偷偷改掉以前的一笔账，就得把后面所有页的指纹都改掉，还得同时改掉大多数同学手里的本子，几乎不可能。这就是它防篡改的原理；代价是记账比较慢，也比较费资源。<|im_end|>
<|im_start|>user
那它适合做什么？<|im_end|>
<|im_start|>assistant
适合互相不完全信任、又需要共享同一份记录的场合，例如跨机构对账、供应链溯源。如果只有一家机构说了算，用普通数据库更简单。<|im_end|>)t",
    R"t(User: translate to spanish: where can i buy bus tickets and do they take cards
Assistant: ¿Dónde puedo comprar billetes de autobús y aceptan tarjetas?
User: thx and in portuguese
Assistant: Onde posso comprar bilhetes de autocarro e aceitam cartão? (In Brazil: "Onde posso comprar passagens de ônibus e vocês aceitam cartão?"))t",
    R"t(User: A farmer has 17 sheep. All but 9 run away. How many are left?
Assistant: Nine. "All but 9" means that every sheep except nine ran away.
User: And how many ran away?
Assistant: 17 − 9 = 8 sheep ran away.
User: The 8 come back with 3 each that they met on the way. How many has he now?
Assistant: The 8 sheep return together with 8 × 3 = 24 others. With the 9 that stayed he now has 9 + 8 + 24 = 41 sheep.)t",
    R"t(<|im_start|>system
Tu es un assistant poli qui répond en français.<|im_end|>
<|im_start|>user
Quelle est la différence entre « c'est » et « il est » ?<|im_end|>
<|im_start|>assistant
On emploie « c'est » devant un nom précédé d'un déterminant : « C'est un médecin », « C'est ma voisine ». On emploie « il est » devant un adjectif ou un nom de métier sans article : « Il est médecin », « Elle est fatiguée ». Pour parler d'une situation en général, on dit plutôt « c'est » : « C'est difficile, mais c'est possible. »<|im_end|>)t",
    R"t(User: my sourdough didn't rise, what did i do wrong 😭
Assistant: Don't despair, it happens to everyone! Three questions: 1) Did your starter double within 4–6 hours of feeding? 2) How warm is your kitchen? 3) How long did the dough rest before shaping?
User: starter barely moved tbh, kitchen is 18 degrees, rested 3h
Assistant: There's your answer: a sleepy starter, and a cold kitchen. Feed it twice a day for two or three days, 1:2:2 by weight, somewhere around 25 °C (an oven with only the light on works). Use it when it floats in water, and at 18 °C give the dough 8–10 hours instead of 3. 🍞)t",
    R"t(<|im_start|>user
Write a Python function that removes duplicates from a list but keeps the order.<|im_end|>
<|im_start|>assistant
```python
def unique(items):
    """First occurrence of each item, in order. Items must be hashable."""
    return list(dict.fromkeys(items))
```

Dictionaries remember the order of insertion, so this is both short and linear in time. For items that are not hashable, such as lists, compare by a key:

```python
def unique_by(items, key):
    seen = set()
    return [x for x in items if not (key(x) in seen or seen.add(key(x)))]
```<|im_end|>
<|im_start|>user
Does the first one work with None?<|im_end|>
<|im_start|>assistant
Yes. `None` is hashable, so `unique([None, 1, None])` gives `[None, 1]`.<|im_end|>)t",
    R"t(用户：我买的鞋子小了半码，可以换吗？订单号是 60217。
客服：您好，已为您查到订单。鞋子没有穿着外出、吊牌完整的话，七天内可以免费换码。请问您需要换成多少码？
用户：换成 39 码，还是黑色。
客服：好的，39 码黑色有货。已经为您提交换货申请，快递员明天上午九点到十二点上门取件，新鞋会在仓库收到后当天寄出。请把旧鞋连同鞋盒一起交给快递员。
用户：谢谢，辛苦了。
客服：不客气，祝您生活愉快！)t",
    R"t(User: Pretend you are a lighthouse keeper and I'm a journalist. How do you spend your nights?
Assistant: Listening, mostly. You learn the engine of the lamp the way others learn a spouse's breathing. If it changes, you're awake before you know why. Between rounds I mend nets, badly, and read the same four books, well.
User: Don't you ever get lonely?
Assistant: Every ship that turns because of my light has spoken to me, as far as I'm concerned. They just don't wait for an answer. That suits us both.)t",
    R"t(<|im_start|>system
You extract data. Reply with JSON only.<|im_end|>
<|im_start|>user
Invoice no. 2024-118 from Feldmann Tools, dated 9 April, total 1,249.00 EUR including 19% VAT, payable within 30 days.<|im_end|>
<|im_start|>assistant
{"invoice_number": "2024-118", "supplier": "Feldmann Tools", "date": "04-09", "total": 1249.00, "currency": "EUR", "vat_rate": 0.19, "payment_terms_days": 30}<|im_end|>)t",
    R"t(User: ¿Me puedes explicar qué es la inflación como si tuviera diez años?
Assistant: Claro. Imagina que cada semana recibes dos monedas y con ellas compras dos helados. Un día el helado cuesta el doble: con las mismas monedas ya solo compras uno. Tus monedas no han cambiado, pero valen menos. Cuando eso pasa con casi todas las cosas a la vez, y no solo con los helados, lo llamamos inflación.
User: ¿Y por qué no fabrican más monedas?
Assistant: Porque habría más monedas para los mismos helados, y el heladero subiría otra vez el precio.)t",
    R"t(User: Which is bigger, 9.11 or 9.9?
Assistant: 9.9 is bigger. Write both with two decimals: 9.11 and 9.90. Since 90 hundredths are more than 11 hundredths, 9.90 > 9.11.
User: But version 9.11 comes after 9.9!
Assistant: True, because version numbers are not decimals: there the parts are compared as whole numbers, and 11 > 9. Same digits, different rules.)t",
    R"t(<|im_start|>user
こんにちは。来週、東京から京都へ行きます。新幹線でどのくらいかかりますか。<|im_end|>
<|im_start|>assistant
こんにちは。東京駅から京都駅まで、いちばん速い列車で約二時間十五分です。停車駅の多い列車だと二時間四十分から三時間四十分ほどかかります。週末は混みますので、指定席の予約をおすすめします。<|im_end|>
<|im_start|>user
富士山は見えますか。<|im_end|>
<|im_start|>assistant
天気がよければ、京都へ向かって右側の窓から見えます。東京を出て四十分から四十五分くらいのところです。<|im_end|>)t",
    R"t(User: Summarize what we decided today in three bullets: we talked for an hour about the logo, nobody likes the green one, Tomas will ask the designer for two new drafts by the 15th, the trade fair booth is booked (deposit 800 paid), and Lucia thinks we need a bigger van but we'll decide next month when we know the budget.
Assistant: - Logo: green version rejected; Tomas gets two new drafts from the designer by the 15th.
- Trade fair: booth booked, deposit of 800 paid.
- Van: decision postponed to next month, when the budget is known.)t",
    R"t(<|im_start|>system
你是一名耐心的数学老师。<|im_end|>
<|im_start|>user
老师，为什么负负得正？<|im_end|>
<|im_start|>assistant
我们用“规律”来看：3×(−2)=−6，2×(−2)=−4，1×(−2)=−2，0×(−2)=0。第一个因数每减少1，结果就增加2。按照这个规律继续下去，(−1)×(−2)应该是2，(−2)×(−2)应该是4。也可以这样想：欠别人两元记作−2，“去掉”三笔这样的欠款，就是(−3)×(−2)，等于多了6元。<|im_end|>
<|im_start|>user
明白了，去掉欠款就等于赚钱！<|im_end|>
<|im_start|>assistant
说得好！下次同学问你，就用这个例子讲给他听。<|im_end|>)t",
    R"t(User: What should I check before buying a used bike?
Assistant: Frame first: look for cracks near the welds and ripples in the paint. Then spin both wheels and watch the gap at the brake pads; a little wobble is cheap to fix, a broken spoke less so. Lift the chain at the front of the chainring: if you can see daylight beneath, it's worn. Squeeze the brakes hard, rock the bike forward, and feel for a knock in the headset. Finally, ask for the serial number and some proof of purchase.
User: The seller says he lost the receipt.
Assistant: That alone proves nothing, but check the number against your local register of stolen bikes, and get a signed note with his name and address. If he refuses, walk away.)t",
    R"t(<|im_start|>user
Is it "fewer" or "less"?<|im_end|>
<|im_start|>assistant
"Fewer" for things you count (fewer apples, fewer errors), "less" for things you measure (less water, less time). Distances, sums of money and periods count as amounts: "less than five miles", "less than ten euros".<|im_end|>
<|im_start|>user
So supermarket signs saying "10 items or less" are wrong?<|im_end|>
<|im_start|>assistant
By the traditional rule, yes. In everyday speech, hardly anyone minds.<|im_end|>)t",
    R"t(User: Напиши короткое поздравление с днём рождения для коллеги, не слишком официальное.
Assistant: С днём рождения! Желаем, чтобы задачи решались сами, встречи заканчивались вовремя, а отпуск никогда не заканчивался слишком быстро. Спасибо, что с тобой легко работать и весело пить чай. Обнимаем всем отделом! 🎂
User: Отлично, а можно ещё короче?
Assistant: С днём рождения! Лёгких задач, крепкого чая и длинного отпуска!)t",
    R"t(User: Debug this for me: for i in range(len(a)): if a[i] == 0: del a[i]
Assistant: The list gets shorter while the loop still counts up to its old length, so you skip the element after each deletion and finally run past the end (IndexError). Build a new list instead:

a = [x for x in a if x != 0]

If other variables refer to the same list, assign to the slice, so that they see the change: a[:] = [x for x in a if x != 0])t",
    R"t(<|im_start|>system
You are a travel agent. Be concise and friendly.<|im_end|>
<|im_start|>user
Four days in Lisbon with my dad (71, bad knee). Ideas?<|im_end|>
<|im_start|>assistant
Happy to! Day 1: Belém by taxi or tram, flat along the river, custard tarts included. Day 2: tile museum in the morning, long lunch, lift up to a viewpoint instead of the stairs. Day 3: train to Cascais, promenade, sunset. Day 4: the modern riverside with its aquarium, all level ground. Stay near the river, not on a hill, and ask for a room with a walk-in shower.<|im_end|>
<|im_start|>user
He hates fish, by the way<|im_end|>
<|im_start|>assistant
Then swap the aquarium's restaurant for grilled chicken, and he can still look the fish in the eye.<|im_end|>)t",
    R"t(User: What is the capital of Australia?
Assistant: Canberra.
User: Not Sydney?
Assistant: No. Sydney is the largest city, but Canberra was planned and built as the capital, as a compromise between Sydney and Melbourne.
User: When was it founded?
Assistant: In 1913; parliament moved there in 1927.)t",
    R"t(问：我想每天跑步，但总是坚持不下来，怎么办？
答：先别定太大的目标。第一周只要求自己“换上跑鞋下楼”，哪怕走五分钟就回来也算完成。把时间固定在每天同一件事之后，例如下班到家以后。一周最多三到四次，隔天休息，身体不会抗拒。找个同伴，或者在日历上画叉，看着一串叉不想让它断，是很有效的办法。
问：下雨天怎么办？
答：准备一个室内替代方案，比如十分钟跳绳或者爬楼梯，这样链条就不会断。)t",
    R"t(<|im_start|>user
Can you explain what a p-value is? I always get it wrong.<|im_end|>
<|im_start|>assistant
Assume that there is no effect at all. The p-value is the probability, under that assumption, of seeing data at least as extreme as yours. A small p-value says "this would be surprising if nothing were going on". It is not the probability that there is no effect, and it says nothing about how large or important an effect is.<|im_end|>
<|im_start|>user
So p = 0.04 doesn't mean a 96% chance that I'm right?<|im_end|>
<|im_start|>assistant
Correct, it doesn't. How likely you are to be right also depends on how plausible the effect was beforehand and on the power of the study.<|im_end|>)t",
    R"t(User: I'm hosting dinner for 8, two vegetarians, one person can't eat gluten. Budget about 60. Menu?
Assistant: Starter: roasted carrot soup with cumin (vegan, gluten-free), about 6. Main: big tray of stuffed peppers, half with rice, beans and feta, half with rice and minced meat, plus a green salad, about 30. Dessert: chocolate mousse with berries, about 12. Bread and a separate gluten-free loaf, about 7. That leaves 5 for candles or ice.
User: Someone just told me she's allergic to nuts
Assistant: The menu has none, but check the labels of the chocolate and the gluten-free bread; both often say "may contain nuts".)t",
    R"t(<|im_start|>system
You are an assistant for a public library.<|im_end|>
<|im_start|>user
how many books can i borrow and how long<|im_end|>
<|im_start|>assistant
Up to 20 items at a time: books for 4 weeks, films and magazines for 1 week. You can renew twice if nobody is waiting.<|im_end|>
<|im_start|>user
i lost one 😬<|im_end|>
<|im_start|>assistant
It happens! Tell us at the desk; you can replace it with a new copy of the same edition or pay its price plus a fee of 3. No late fees are charged from the day you report it.<|im_end|>)t",
    R"t(User: Write me a cover note for returning a defective toaster.
Assistant: Dear Sir or Madam, I bought the enclosed toaster (model T-220, serial number below) on 2 February. Since last week only one of its two slots has heated. Please repair or replace it under the guarantee; a copy of the receipt is enclosed. You can reach me by email or phone. Kind regards,
User: Make it funnier.
Assistant: Dear Sir or Madam, my toaster has retired by half. The left slot still toasts with enthusiasm; the right one merely keeps the bread company. As my household insists on two slices at a time, I return it to you for encouragement, repair or replacement. The receipt is enclosed. Yours, crisply on one side,)t",
    R"t(<|im_start|>user
把这句话改得更正式一些：“这事儿我们搞砸了，下次注意。”<|im_end|>
<|im_start|>assistant
对于此次工作中出现的失误，我们深表歉意。今后将加强审核流程，避免类似情况再次发生。<|im_end|>
<|im_start|>user
稍微短一点，不要太官腔。<|im_end|>
<|im_start|>assistant
这次是我们的疏忽，非常抱歉。我们已经改进流程，不会再出现同样的问题。<|im_end|>)t",
    R"t(User: Who would win, a hundred duck-sized horses or one horse-sized duck?
Assistant: I'd back the hundred horses in the open, because nobody can watch two hundred hooves at once. In a narrow corridor, my money is on the duck: a beak that size is a door with opinions. In water there is no contest at all.
User: You've thought about this a lot.
Assistant: Only since you asked, but intensely.)t",
    R"t(<|im_start|>system
Answer in German.<|im_end|>
<|im_start|>user
Why does ice float?<|im_end|>
<|im_start|>assistant
Eis schwimmt, weil Wasser beim Gefrieren etwa neun Prozent mehr Raum einnimmt. Die Moleküle ordnen sich zu einem lockeren Gitter, sodass die Dichte auf rund 0,917 g/cm³ sinkt. Die meisten anderen Stoffe verhalten sich umgekehrt und werden beim Erstarren dichter. Deshalb frieren Seen von oben zu, und die Fische überleben den Winter am Grund, wo das Wasser etwa 4 °C hat.<|im_end|>)t",
    R"t(User: Give me the SQL to find customers without any orders.
Assistant: SELECT c.* FROM customers c LEFT JOIN orders o ON o.customer_id = c.id WHERE o.id IS NULL;
User: Why not NOT IN?
Assistant: It works only as long as orders.customer_id is never NULL. With a single NULL in the subquery, NOT IN yields "unknown" for every row and you get no result at all. NOT EXISTS is safe, and most planners execute it like the join above.)t",
    R"t(User: هل يمكنك أن تشرح لي الفرق بين الطقس والمناخ؟
Assistant: الطقس هو حالة الجو في مكان معين خلال ساعات أو أيام، مثل المطر اليوم أو الحرارة غدًا. أما المناخ فهو متوسط الطقس في منطقة ما على مدى سنوات طويلة، ثلاثين سنة عادةً. ببساطة: المناخ هو ما تتوقعه، والطقس هو ما تحصل عليه.
User: شكرًا، شرح واضح.
Assistant: على الرحب والسعة!)t",
    R"t(<|im_start|>user
Continue the story: The elevator stopped between the seventh and eighth floor, and that was when we heard the knocking.<|im_end|>
<|im_start|>assistant
It came from above. Three knocks, a pause, two more. Mrs. Albrecht, who had lived in the building longest, took off her glove and knocked back. "You know it?" I whispered. "Of course," she said. "That's the eighth floor asking whether there's room." The lights flickered. Somebody moved their shopping. We all, without quite deciding to, took half a step closer together, and the ceiling hatch began, very politely, to open.<|im_end|>)t",
    R"t(User: 17 * 24?
Assistant: 408
User: how'd you get it
Assistant: 17 × 24 = 17 × 20 + 17 × 4 = 340 + 68 = 408.
User: and 408 / 16
Assistant: 25.5, because 16 × 25 = 400 and the remaining 8 is half of 16.
User: square root of that?
Assistant: About 5.0498. Check: 5.05² = 25.5025, just a little too much.)t",
    R"t(<|im_start|>system
你是一个写作助手，擅长修改润色。<|im_end|>
<|im_start|>user
帮我给一家新开的面馆写三句广告语，要朴实，不要夸张。<|im_end|>
<|im_start|>assistant
1. 一碗热汤面，像家里一样。
2. 面是早上和的，汤是昨夜熬的。
3. 不急，坐下来，慢慢吃。<|im_end|>
<|im_start|>user
第二句很好，再帮我配一个店名。<|im_end|>
<|im_start|>assistant
“隔夜汤”容易让人误会，不如叫“守汤人”，意思是夜里守着一锅汤的人，和广告语正好呼应。<|im_end|>)t",
    R"t(User: What does "404" mean on a website?
Assistant: It's the status code a server sends when it is reachable but has no page under the address you asked for: a mistyped link, or a page that was moved or deleted.
User: and 500?
Assistant: Something failed inside the server while it was handling your request. There is nothing you can fix; try again later. As a rule, codes from 400 to 499 blame the request, codes from 500 to 599 blame the server.)t",
    R"t(Interviewer: Tell me about a mistake you made at work.
Candidate: In my second month I sent a test message to eleven thousand customers. It said "asdf". I told my manager within a minute, we wrote an apology, and I added a check that asks for a second person before anything goes to more than a hundred recipients.
Interviewer: And how did the customers take it?
Candidate: The apology had the best opening rate of the year. About two hundred people replied "asdf" back.)t",
    R"t(<|im_start|>user
I have 3 cups of flour, 2 eggs, milk, sugar, butter, and no oven. What can I make?<|im_end|>
<|im_start|>assistant
Pancakes are the obvious choice: 1½ cups of flour, 2 eggs, about 1½ cups of milk, a spoon of sugar, a pinch of salt; fry in butter over medium heat. With the rest of the flour you can make flatbread: flour, water, a little butter and salt, rolled thin and cooked in a dry pan. Fill it with sugar and butter for dessert.<|im_end|>
<|im_start|>user
no salt either lol<|im_end|>
<|im_start|>assistant
Then make them sweet and use salted butter if you have it. Nobody will notice. 🥞<|im_end|>)t",
    R"t(User: Is this sentence grammatical? "The horse raced past the barn fell."
Assistant: Yes, though nearly everyone stumbles over it. "Raced past the barn" is a shortened relative clause: "The horse (that was) raced past the barn fell." Readers take "raced" for the main verb until "fell" arrives and has nowhere to go. Such sentences are called garden-path sentences.)t",
    R"t(<|im_start|>system
You are a tool-using assistant. Available tool: get_weather(city: string, day: string).<|im_end|>
<|im_start|>user
Do I need an umbrella in Oslo tomorrow?<|im_end|>
<|im_start|>assistant
<tool_call>
{"name": "get_weather", "arguments": {"city": "Oslo", "day": "tomorrow"}}
</tool_call><|im_end|>
<|im_start|>user
<tool_response>
{"temp_max_c": 9, "rain_mm": 6.4, "probability": 0.85}
</tool_response><|im_end|>
<|im_start|>assistant
Yes, take one: there is an 85% chance of rain, about 6 mm in total, and it will be no warmer than 9 °C.<|im_end|>)t",
    R"t(User: Quels légumes puis-je planter en septembre ?
Assistant: En septembre, vous pouvez semer de la mâche, des épinards, des radis et de la roquette, et repiquer des choux d'hiver ainsi que des laitues. C'est aussi le moment de préparer l'ail et les oignons blancs.
User: J'ai seulement un balcon, plein nord.
Assistant: Alors préférez la mâche, la roquette et le persil : ils supportent la mi-ombre. Utilisez des bacs d'au moins vingt centimètres de profondeur et arrosez peu, mais régulièrement.)t",
    R"t(User: I can't decide between two job offers. A pays 10% more, B is a 15 minute walk from home.
Assistant: Let's put a number on it. How long would the commute to A be, each way?
User: 50 min by train
Assistant: So A costs you about 70 minutes more per working day, roughly 260 hours a year at 220 days. Divide the extra pay, after tax, by 260: that is your hourly wage for sitting on a train. If the figure would make you laugh as a job offer, take B. If you would be reading happily on that train, the sum looks different.)t",
    R"t(<|im_start|>user
北京到上海的高铁大概要多久？<|im_end|>
<|im_start|>assistant
最快的车次大约四个半小时，停站多的要五个半到六个小时。<|im_end|>
<|im_start|>user
那飞机呢？<|im_end|>
<|im_start|>assistant
飞行时间两个多小时，但是加上去机场、安检、候机和取行李的时间，一般也要五个小时左右。如果出发地和目的地离高铁站近，高铁更省心；票价方面，提前订的折扣机票有时更便宜。<|im_end|>)t",
    R"t(Player: I open the chest.
Game master: The lid creaks. Inside, on a bed of straw, sleeps a fox the size of a cat, with fur the colour of embers. It opens one eye. "Close it, please. There's a draught."
Player: I apologise and ask whether it knows the way out.
Game master: "Out of what?" asks the fox. Roll for persuasion.
Player: 17!
Game master: The fox sighs, stretches, and climbs onto your shoulder. It is very warm. "Left," it says. "Always left, until you smell rain.")t",
    R"t(User: Convert to a regular expression: a date like 2024-05-31, year 1900-2099.
Assistant: ^(19|20)\d{2}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$
It checks the shape and the ranges of month and day but not the length of each month, so 2024-02-31 passes. Validate with a date library afterwards.)t",
    R"t(<|im_start|>system
You are a helpful assistant. Think before you answer.<|im_end|>
<|im_start|>user
Anna is taller than Ben. Ben is taller than Carla. Dan is shorter than Ben. Who is the shortest?<|im_end|>
<|im_start|>assistant
<think>
Anna > Ben > Carla and Ben > Dan. Nothing relates Carla and Dan.
</think>

It cannot be determined. Anna is the tallest and Ben comes second, but Carla and Dan are both shorter than Ben, and nothing is said about which of the two is shorter.<|im_end|>)t",
    R"t(User: 밤에 잠이 잘 안 와요. 어떻게 하면 좋을까요?
Assistant: 힘드시겠어요. 우선 자기 한 시간 전에는 휴대전화를 멀리 두고 방을 조금 서늘하게 해 보세요. 오후 두 시 이후에는 커피를 피하고, 매일 같은 시간에 일어나는 것이 가장 중요합니다. 이십 분이 지나도 잠이 오지 않으면 잠깐 일어나 조용한 책을 읽다가 졸릴 때 다시 누우세요. 몇 주 동안 계속되면 의사와 상담하시는 것이 좋습니다.
User: 고맙습니다. 오늘부터 해 볼게요.)t",
};

}  // namespace

std::span<const std::string_view> builtin_chat() {
  return kTexts;
}

}  // namespace llmq::convert
