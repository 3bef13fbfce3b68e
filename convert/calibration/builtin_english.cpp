// English: explanations, stories, questions, letters, instructions, arithmetic, tables, news.
// The texts keep their long lines, because line ends are part of them.

#include "convert/calibration/builtin_texts.h"

namespace llmq::convert {
namespace {

constexpr std::
    string_view
        kTexts
            [] =
                {
                    R"t(Bread rises because yeast eats the sugars in flour and gives off carbon dioxide. The gas is caught in a net of gluten, the stretchy protein that forms when flour and water are kneaded together. A warm kitchen speeds the process up, a cool one slows it down and lets more flavour develop. Salt does two jobs: it tightens the gluten and keeps the yeast from racing ahead. When the loaf meets the hot oven, the last bubbles swell quickly, the crust sets, and the shape is fixed. If you cut into the bread while it is still hot, the crumb smears, because the starch inside has not yet firmed. Wait an hour, and the same slice will be clean and springy.)t",
                    R"t(The ferry left at ten past six, and Marta was not on it. She stood on the pier with a suitcase in one hand and a paper bag of plums in the other, watching the white wake spread and fade. "You could swim," said the old man who sold tickets, without looking up from his crossword. She laughed, in spite of herself, and offered him a plum. By the time the next boat came they had finished the bag, solved fourteen across, and agreed that missing things was, on the whole, an underrated way to begin a journey.)t",
                    R"t(Passage: The Ostrel valley has three villages. Upper Ostrel lies at 1,240 metres and is reached by a single road that closes in winter. Middle Ostrel, at 860 metres, has the only school. Lower Ostrel is the largest of the three, with about 2,300 inhabitants, a railway station and a small hospital.
Question: Which village can be cut off by snow, and where do its children go to school?
Answer: Upper Ostrel can be cut off, because its only road closes in winter. Its children go to school in Middle Ostrel, which has the only school in the valley.)t",
                    R"t(How to descale a kettle:
1. Mix equal parts of white vinegar and water, enough to cover the heating element.
2. Bring the mixture to the boil, then switch the kettle off and let it stand for 30 minutes.
3. Pour it out and wipe away any loose scale with a soft cloth.
4. Fill the kettle with fresh water, boil it and throw the water away. Repeat until the smell has gone.
Do this once a month in areas with hard water. Never use bleach, and never scrub the element with steel wool.)t",
                    R"t(Dear Ms. Okafor,

Thank you for your letter of 12 March about the noise from our loading bay. You are right that deliveries before seven in the morning are not allowed under our agreement with the residents, and I am sorry that it happened three times last week. We have spoken with the haulier concerned. From Monday on, the gate will stay locked until 7:00, and a member of our staff will be on site to make sure of it. If you are woken again, please ring the number below at any hour.

Yours sincerely,
D. Lindqvist
Site Manager)t",
                    R"t(Question: A shop sells notebooks at $2.40 each. Anyone who buys ten or more gets 15% off the whole order. How much do 12 notebooks cost?
Answer: Without the discount, 12 notebooks cost 12 × 2.40 = $28.80. Fifteen percent of 28.80 is 4.32. So the order costs 28.80 − 4.32 = $24.48.
#### 24.48)t",
                    R"t(HARBOUR BRIDGE TO CLOSE FOR SIX WEEKS

The swing bridge over the inner harbour will be closed to all traffic from 4 May until the middle of June, the port authority announced on Tuesday. Engineers found cracks in two of the bearings during a routine inspection in February. Replacing them means lifting the 900-tonne span with jacks, something that has not been done since the bridge was built. Buses will be diverted along Quay Street, and a small passenger ferry will run every fifteen minutes for people on foot. Shopkeepers on the eastern side said that they feared for the early summer trade and asked the council to waive parking fees.)t",
                    R"t(A hash table stores pairs of keys and values in an array. A function turns each key into a number, and that number, taken modulo the array's length, says where the pair belongs. Two keys can land in the same place. One remedy is to keep a short list in every slot; another is to walk on to the next free slot. Either way, the table stays fast only while it is not too full, so implementations grow the array, often doubling it, once the load passes a threshold such as 0.75. Growing costs time, but it happens so rarely that, averaged over many insertions, each one remains cheap.)t",
                    R"t(| Planet | Moons known to the ancients | Day (hours) | Year (Earth days) |
|---|---|---|---|
| Mercury | 0 | 4222.6 | 88.0 |
| Venus | 0 | 2802.0 | 224.7 |
| Earth | 1 | 24.0 | 365.2 |
| Mars | 0 | 24.7 | 687.0 |

The table shows that a solar day on Mercury lasts longer than its year: the planet turns so slowly that the Sun needs two Mercury years to come back to the same place in the sky.)t",
                    R"t(Summarize the following in one sentence.

Text: Our community garden was founded eleven years ago on the site of a demolished garage. At first, tests showed lead in the soil, so the members built raised beds and brought in clean earth. Today there are 42 beds, a greenhouse, two hives of bees and a waiting list of more than a hundred families. Last autumn the council offered a second plot behind the library.

Summary: A community garden that began on contaminated ground has grown in eleven years to 42 raised beds, a greenhouse and beehives, and is so popular that the council has offered it more land.)t",
                    R"t(I don't trust maps that have no coffee stains. A clean map has never been spread on a wet table, argued over, turned upside down and blamed. Mine has a tear along the river Tey, mended with tape that has gone the colour of tea, and a hole where the town of Brill ought to be. We found Brill anyway, twice, once on purpose.)t",
                    R"t(Choose the correct option.
Which of the following changes the pitch of a guitar string the least?
A. Pressing it down at a fret
B. Turning the tuning peg
C. Plucking it more softly
D. Replacing it by a thicker string of the same material
Answer: C. Plucking more softly mainly lowers the loudness; length, tension and mass per length, which set the pitch, stay almost the same.)t",
                    R"t(Minutes of the meeting of 3 October
Present: Ana, Bilal, Chen, Dora (chair). Apologies: Erik.
1. Minutes of the last meeting were approved.
2. Budget. Bilal reported that we have spent 61% of the year's money in 75% of the year. Chen asked whether the unspent travel money could go to the workshop; agreed.
3. Website. The old server will be switched off on 1 December. Ana to move the archive by 15 November.
4. Any other business. Dora will be away from 20 to 28 October; Chen stands in.
Next meeting: 7 November, 14:00, room 2.12.)t",
                    R"t(Vaccines train the immune system without making a person ill. They show it a harmless piece of a germ, or instructions for building such a piece, and certain white blood cells learn to recognise it. Most of the cells that answered the alarm die within weeks, but a few long-lived memory cells remain. If the real germ arrives later, those cells multiply within days rather than weeks, and the infection is often stopped before any symptom appears. Boosters are given because memory fades, or because the germ itself has changed.)t",
                    R"t(Translate into French: "The library is closed on Mondays, but you can return books through the slot beside the door."

« La bibliothèque est fermée le lundi, mais vous pouvez rendre les livres par la fente à côté de la porte. »)t",
                    R"t(The knight had been promised a dragon. What he found in the cave was a small, grey, wheezing creature that could not have set fire to dry straw. "It's the damp," it explained. "I was magnificent once. Ask anyone in the village over seventy." The knight sat down on a stone and took off his helmet, which had never fitted. "I was told you had eaten eleven sheep." "Nine," said the dragon, "and one of those was a goat." They considered each other. Outside, the rain went on. In the end, the knight lit the fire himself, and they shared the soup.)t",
                    R"t(Q: Is it safe to look at a partial solar eclipse with ordinary sunglasses?
A: No. Sunglasses pass far too much light, including infrared that you cannot see, and the eye feels no pain while the retina is being burned. Use eclipse viewers made for the purpose, undamaged and certified, or project the Sun's image through a pinhole on a sheet of paper and look at the paper instead.)t",
                    R"t(Packing list for four days in the mountains
- Boots (worn in!), two pairs of wool socks
- Rain jacket, fleece, hat, gloves
- Sleeping bag liner for the hut
- 1.5 litres of water per person per day
- Map 1:25,000, compass, charged phone, whistle
- First-aid kit: plasters, bandage, painkillers, tweezers
- Food: oats, nuts, hard cheese, chocolate, dried apricots
- Cash; the huts do not take cards
Leave at home: jeans, umbrella, anything made of cotton that you would mind getting wet.)t",
                    R"t(Interest on interest grows faster than most people guess. Suppose that 1,000 euros earn 5% a year. After one year there are 1,050; after two, 1,102.50; after ten, about 1,628.89; after thirty, about 4,321.94. A rule of thumb says that money doubles in roughly 72 divided by the rate: here 72 / 5 = 14.4 years. The same arithmetic works against you with debts. A credit card at 20% doubles an unpaid balance in less than four years.)t",
                    R"t(To whom it may concern,

I am writing to apply for the position of laboratory assistant that you advertised in the spring bulletin. I hold a diploma in chemistry and have worked for two years in a water-testing laboratory, where I prepared samples, calibrated instruments and kept the records for accreditation. I am careful, I write legibly, and I have never once lost a sample. I could begin on the first of August. My certificates are enclosed.

With kind regards,
P. Marchetti)t",
                    R"t(The match turned in the sixty-third minute. Until then the home side had defended in two neat lines and barely crossed the halfway mark. Then a long throw was only half cleared, the ball bounced once, and the substitute, who had been on the field for ninety seconds, struck it from 25 metres. It went in off the post. The visitors pushed forward, left space behind them, and were punished twice more on the break: 3–0, and flattering to nobody.)t",
                    R"t(Photosynthesis, put simply, is a way of storing sunlight. Green leaves take in carbon dioxide through tiny pores and draw water up from the roots. Chlorophyll absorbs red and blue light and uses the energy to split water, which releases the oxygen we breathe. The hydrogen that is left is then combined with carbon dioxide, step by step, into sugar. The overall balance is 6 CO2 + 6 H2O → C6H12O6 + 6 O2, although the plant never performs it in a single step.)t",
                    R"t(Classify the sentiment of each review as positive, negative or mixed.

Review: The soup was cold, the waiter forgot our drinks, and we still had to wait for the bill. Sentiment: negative
Review: Lovely view, average food, and the prices are a bit of a joke. Sentiment: mixed
Review: Best dumplings I have had in years, and they let my daughter fold one herself! Sentiment: positive
Review: It does what it says on the box, but the box is the best thing about it. Sentiment: negative)t",
                    R"t(Warning: this device contains a lithium-ion battery. Do not crush, puncture or heat it above 60 °C (140 °F). Charge only with the supplied adapter (5 V, 2 A). If the case swells, stop using the device at once, put it on a non-flammable surface outdoors and contact the dealer. Dispose of the battery at a collection point, not with household waste. Keep out of reach of children under 3 years.)t",
                    R"t(My grandmother counted everything. Stairs (fourteen to the cellar), swallows on the wire, the seconds between lightning and thunder. When I was six I asked her why. "So that I notice when one is missing," she said. For years I thought she meant the swallows.)t",
                    R"t(Question: Two trains leave the same station at the same time in opposite directions. One travels at 80 km/h and the other at 95 km/h. After how long are they 437.5 km apart?
Let's think step by step. The distance between them grows by 80 + 95 = 175 km every hour. 437.5 / 175 = 2.5. They are 437.5 km apart after 2.5 hours, that is, two hours and thirty minutes.)t",
                    R"t(The difference between weather and climate is a difference of time. Weather is what you meet when you open the door; climate is what you expect before you do. A single cold winter says as little about climate as a single losing hand says about a card player. To speak of climate, meteorologists average over at least thirty years, and they look not only at the mean but also at how often extremes occur.)t",
                    R"t(Abstract. We study how the order of training examples affects the final accuracy of small classifiers. In 240 runs on three data sets, presenting easy examples first shortened training by 18% on average but changed the final error by no more than 0.3 percentage points. The effect vanished when the learning rate was tuned separately for each order. We conclude that the benefit of curricula in this setting is mostly a benefit of smaller early gradients, and we discuss two cases in which this explanation fails.)t",
                    R"t(Recipe: lentil soup for four
Ingredients: 250 g brown lentils, 1 onion, 2 carrots, 1 stick of celery, 2 cloves of garlic, 1 tin (400 g) of tomatoes, 1.2 l vegetable stock, 1 tsp cumin, olive oil, lemon, salt.
Method: Chop the vegetables and fry them gently in oil for ten minutes. Stir in garlic and cumin; after a minute add lentils, tomatoes and stock. Simmer for 35 minutes, until the lentils are soft. Season, and squeeze half a lemon over the pot just before serving. It tastes even better the next day.)t",
                    R"t(The old argument about whether mathematics is invented or discovered may rest on a false choice. Chess was certainly invented, yet nobody invented the fact that a king and two knights cannot force mate against a lone king; that was found out. People choose the rules, and then the rules have consequences that no one chose. If that is right, the interesting question is not where mathematics lives but why some of the games we made up turn out to describe the motion of planets.)t",
                    R"t(Lost: grey cat with one white paw, answers to "Biscuit" when she feels like it. Last seen on Friday evening near the corner of Mill Lane and Station Road. She is shy with strangers, so please don't chase her; call instead, day or night. She needs medicine every two days. Check your sheds and garages, please! Reward: our lasting gratitude and a very large cake.)t",
                    R"t(Fill in the blanks with the correct form of the verb.
1. If I ______ (know) about the strike, I would have taken the car. → had known
2. She ______ (work) here since 2016. → has worked / has been working
3. By the time we arrived, the film ______ (already, begin). → had already begun
4. He suggested ______ (leave) earlier. → leaving
5. The letters ______ (deliver) every morning at nine. → are delivered)t",
                    R"t(Concrete is strong when it is squeezed and weak when it is pulled. Steel is good at both but expensive and prone to rust. Put steel bars where a beam is pulled, usually along the bottom, and pour concrete around them: the concrete carries the pressure, the bars carry the tension, and the alkaline cement protects them from rusting. By a lucky accident the two expand almost equally when they get warm, about 0.01 mm per metre and degree, so that the partnership does not tear itself apart every summer.)t",
                    R"t(Breaking it down: what does the new parking scheme mean for you?
• Residents pay 40 a year for the first car, 110 for the second.
• Visitors get 20 free day tickets per household; further ones cost 3.50.
• Between 18:00 and 8:00, and all day on Sundays, parking is free for everyone.
• Disabled badge holders are not affected.
The scheme starts on 1 September, with a grace period of two weeks in which wardens leave reminders instead of fines.)t",
                    R"t(Once a year the river takes the lower field, and once a year my father pretends to be surprised. He stands at the fence in his good boots and says, "Well, would you look at that." The hens are already in the loft. The potatoes came up two weeks ago. Everything that could float has been tied down since the first of March, by him, at night, when he thought that we were asleep.)t",
                    R"t(In statistics, the median is the value in the middle of a sorted list. For 3, 7, 8, 12, 94 it is 8, while the mean is (3 + 7 + 8 + 12 + 94) / 5 = 24.8. One extreme value moved the mean far from every typical number and left the median where it was. That is why incomes are often described by the median. On the other hand, if you want to know the total from the average, only the mean will do.)t",
                    R"t(Email
Subject: Re: Re: broken build on the release branch
Hi all,
found it. The test passes alone and fails in the suite because another test sets the time zone to UTC+13 and never puts it back. On my laptop the order is different, hence the "works for me". I'll push a fix that restores the environment after each test. Could somebody review it before lunch? Release is at 16:00 and I would rather not be the person who delayed it twice.
Cheers, Joon)t",
                    R"t(Passage: Corals are animals, but reef-building corals depend on algae that live in their tissue. The algae supply sugars; the coral supplies shelter and nutrients. When the water stays too warm for several weeks, the coral expels the algae and turns white. A bleached coral is not dead, and it may recover if the temperature falls soon, but it is starving.
Question: does bleaching mean that the coral has died?
Answer: no)t",
                    R"t(Good evening, and welcome to the late shift. Tonight: a town that has banned leaf blowers, a listener who has restored a pipe organ in her garage, and, because you keep asking for it, twenty uninterrupted minutes of rain on a tin roof. But first the shipping forecast. Winds south-west, five to seven, decreasing four later. Occasional showers. Visibility good. Mind how you go.)t",
                    R"t(Definition. A relation on a set is an equivalence relation if it is reflexive, symmetric and transitive. Example: on the integers, let a ~ b mean that a − b is divisible by 5. It is reflexive, since a − a = 0; symmetric, since b − a = −(a − b); and transitive, since (a − b) + (b − c) = a − c. The classes are the five sets of numbers with remainder 0, 1, 2, 3 and 4. Exercise: show that "a divides b" is not an equivalence relation on the positive integers.)t",
                    R"t(Customer: I ordered a blue lamp, size M, and got a green one, size L. Order number 7731-0042-B.
Agent: I am sorry about that. I can see the order. Would you like the blue lamp sent again, or your money back?
Customer: The lamp, please, but I need it by the 24th.
Agent: It ships today by express, at no cost to you. You will have it on the 22nd. A label for returning the green one is in your inbox; there is no hurry with that.)t",
                    R"t(Why do we yawn? Nobody is certain. The old idea that yawning brings in oxygen has not held up: people who breathe pure oxygen yawn just as often. Some researchers think that it cools the brain, others that it helps us change from one state of alertness to another. That it is contagious is well established, in humans and in some other animals. You may even be yawning now, having only read the word a few times.)t",
                    R"t(Terms of use (summary). You may use the service for your own, non-commercial purposes. You keep the rights to what you upload; you allow us to store and display it as far as the service requires. We may suspend accounts that send spam, try to break in, or harm other users. We do our best to keep the service running, but we do not promise that it will never fail. If we change these terms, we will tell you at least 30 days before.)t",
                    R"t(At the museum of unfinished things there is a staircase of nine steps, a novel that ends in the middle of a sentence, a bridge from both banks that never met, and a cup without a handle, still waiting on the wheel. Visitors are given a pencil at the door. Most of them write nothing. One, last spring, added a single comma to the novel, and the guards have argued about it ever since.)t",
                    R"t(Instruction: Rewrite the sentence so that it sounds more polite.
Input: Send me the report today.
Output: Could you please send me the report by the end of the day?

Instruction: Rewrite the sentence so that it sounds more formal.
Input: We messed up the invoice, sorry!
Output: We apologise for the error in the invoice.)t",
                    R"t(A lighthouse flashes in a pattern of its own so that sailors can tell which one they see. "Fl(3) 20s" on a chart means three flashes every twenty seconds; "Oc" means that the light is on most of the time and briefly eclipsed. Height matters as well: because the Earth is curved, a light 40 metres above the sea is visible from a small boat at roughly 15 to 16 nautical miles, however bright it may be.)t",
                    R"t(Quarterly results: revenue rose by 4.2% to 318.6 million, helped by strong demand for replacement parts, while operating profit slipped from 41.0 to 37.8 million as energy and freight became dearer. The order book stands at 1.12 billion, a record. Management confirmed its forecast for the year but narrowed the range for the margin to between 11.5% and 12.5%. Investment in the second plant will begin in the third quarter, six months later than planned.)t",
                    R"t(There was an old clock in a tower
That struck every number but four;
When asked of its reason
It said, "Out of season,
I lent it the clock from next door."

The people below, who had learned
To be late whenever it turned,
Now nap after three,
Wake for five and their tea,
And nobody's been much concerned.)t",
                    R"t(Compare and contrast: bicycles and cars in the city.
Both take you from door to door. A car is faster on open roads, carries luggage and keeps you dry; in dense traffic it averages perhaps 20 km/h, and it needs about ten times the space. A bicycle costs little, parks anywhere, keeps its rider fit, and arrives almost at the minute that was planned. In heavy rain, with a double bass, or with three small children, the comparison looks different. Many households therefore do not choose but combine.)t",
                    R"t(Log of the expedition, day 17. Wind dropped at dawn. −23 °C. We made 11.4 km over hard snow, our best day so far, though T.'s left binding broke again and was mended with wire. The ridge that we had taken for land was only cloud. Supper: the last of the cheese. Morale is better than it has a right to be. Position at camp 78°41′ N, 16°20′ E by three sights.)t",
                    R"t(Explain like I'm five: why is the sky blue? Sunlight looks white, but it is a mix of all the colours of the rainbow. When it comes through the air, it bumps into tiny bits that are much too small to see. Blue light gets bounced around far more than red light. So wherever you look up, some bounced blue light is coming towards your eyes. In the evening the light has to come through a lot more air, most of the blue is bounced away before it reaches you, and what is left is orange and red.)t",
                    R"t(Problem: The sum of three consecutive even numbers is 78. What are they?
Solution: Call the middle number n. Then the three numbers are n − 2, n and n + 2, and their sum is 3n. From 3n = 78 we get n = 26. The numbers are 24, 26 and 28. Check: 24 + 26 + 28 = 78. ✓)t",
                    R"t(Reader's letter: Your article on noise in restaurants spoke from my heart. I wear hearing aids, and a room with bare concrete, music and an open kitchen is, for me, like a meal inside a drum. A few curtains would help. So would turning down the speakers when the room is full, rather than up. I no longer choose restaurants by their menus but by their ceilings. — H. B., by email)t",
                    R"t(SCENE II. A railway waiting room at night.
IDA. Is that the last train?
PORTER. That was the last train, miss. This is the first one. They look alike.
IDA. When does it leave?
PORTER. When somebody gets on.
(She looks at the train. She looks at her ticket.)
IDA. This says Thursday.
PORTER. It generally does.)t",
                    R"t(Operating systems give each process the illusion of having the whole memory for itself. Addresses that a program uses are virtual; hardware translates them to physical ones page by page, typically 4 KiB at a time, with the help of a cache called the TLB. A page that is not present raises a fault, upon which the kernel may load it from disk, fill it with zeros, or end the program. Because two processes can map the same physical page, a library needs to be in memory only once, however many programs use it.)t",
                    R"t(Name: ____________  Date: ____________
Geography quiz
1. What do we call the line of latitude 0°? (the equator)
2. Which is longer, a degree of longitude at the equator or at 60° north? (at the equator; about twice as long)
3. A map has a scale of 1:50,000. How many kilometres are 7 cm on the map? (3.5 km)
4. Why do rivers deposit mud where they meet the sea? (because the water slows down))t",
                    R"t(I used to think that patience was a matter of temperament, like being tall. Then I took up repairing watches. The first lesson is to put the screwdriver down when you feel the urge to press harder. The second is that a part that has vanished is always nearer than you think, and usually on your sleeve. After two years I am no calmer than I was, but I have learned how calm behaves, and I can imitate it for up to forty minutes.)t",
                    R"t(Extract the named entities from the sentence as JSON.
Sentence: On 5 June the Tarnow Observatory reported that the comet would pass within 0.4 astronomical units of the Earth, said Dr. Imelda Voss.
{"date": "5 June", "organization": "Tarnow Observatory", "person": "Dr. Imelda Voss", "quantity": "0.4 astronomical units", "celestial_body": ["comet", "Earth"]})t",
                    R"t(Gardeners' calendar, April. Sow carrots, beetroot and spinach outdoors as soon as the soil no longer sticks to your boots. Harden off seedlings by putting them outside for a few hours every day. Prune forsythia after it has flowered, not before. Watch for slugs on mild, wet evenings. A late frost is still possible until the middle of May in most places, so keep a fleece at hand and do not be tempted by the tomatoes in the shop window.)t",
                    R"t(User story: As a volunteer, I want to swap my shift with someone else without ringing the coordinator, so that I can react to short-notice changes.
Acceptance criteria:
- Given that I am signed up for a shift, when I offer it for swapping, then everybody with the same training sees it.
- When someone accepts, both of us get a message within one minute.
- A swap less than 2 hours before the shift needs the coordinator's approval.
- The history of swaps can be exported as CSV.)t",
                    R"t(The violin and the viola differ by a fifth, and, musicians will tell you, by a thousand jokes. The viola is tuned C–G–D–A, each string a fifth below the violin's, but its body is only about fifteen percent longer, not half as long again as the acoustics would like. That compromise gives the instrument its veiled, slightly nasal voice. Composers long used it for filling; later ones found that melancholy needed precisely such a voice.)t",
                    R"t(Dear diary, today I spoke in front of the whole class and NOTHING happened. I mean, I talked, and they listened, and then it was over!! Nobody laughed except at the bit where they were supposed to. My hands were shaking so badly that I put the cards down and just told it from memory. Mum made pancakes. I'm never going to be scared again (until Thursday, when we have swimming).)t",
                    R"t(A contract needs an offer, an acceptance and, in common-law systems, consideration: each side must give something. An advertisement is usually not an offer but an invitation to make one, which is why a shop need not sell at a price misprinted on the shelf. Silence is not acceptance. Contracts need not be written to be binding, with exceptions such as the sale of land, but what is not written is hard to prove. None of this is legal advice; rules differ from country to country.)t",
                    R"t(Yesterday's high was 31.5 °C, the low 18.2 °C, humidity 64%. Today: sunny with high clouds, 33 °C in the afternoon, light wind from the south-east. Tonight: chance of thunderstorms 40%, rising to 70% after midnight, with 10–25 mm of rain and gusts up to 75 km/h. Tomorrow: cooler, 24 °C, showers in the morning, clearing later. UV index 8 (very high). Pollen: grasses medium, birch none. Sunrise 5:12, sunset 21:27.)t",
                    R"t(What is recursion? A function is recursive if it calls itself on a smaller problem. Every recursion needs a case that is solved directly; otherwise it never ends. The factorial is the standard example, n! = n · (n − 1)! with 0! = 1, but loops do that as well. Recursion earns its keep where the data are themselves recursive: folders within folders, expressions within expressions, a family tree. To understand it, trace a small case by hand, for instance 3! = 3 · 2! = 3 · 2 · 1! = 3 · 2 · 1 · 0! = 6.)t",
                    R"t(Press release – for immediate publication
The city orchestra will open its season on 20 September with a concert for people who have never been to one. Tickets cost 5; latecomers are welcome; clapping between movements is encouraged. Members of the orchestra will sit among the audience before the beginning and explain their instruments. "We want to find out what happens when nobody knows the rules," said the orchestra's director. The programme lasts 55 minutes and has no interval.)t",
                    R"t(The trouble with the second law of thermodynamics is that it is so easily misquoted. It does not say that disorder must increase everywhere; your freezer makes order every time it makes ice. It says that the total entropy of an isolated system does not decrease, and the freezer pays for its ice by heating the kitchen. Life does the same on a grander scale: it takes in low-entropy sunlight and gives off high-entropy warmth, and in between it builds trees.)t",
                    R"t(Directions: From the station take the main exit and turn left. Walk along Canal Street for about 400 m until you see a pharmacy on the corner (green cross). Cross the bridge, take the second street on the right, and go uphill past the school. Number 36 has a red door. The bell is broken, so please knock loudly or call. If you come by car, do not follow the navigation system at the roundabout; it thinks that the lane by the mill is a road. It is not.)t",
                    R"t("Is anybody sitting here?" asked the man with the cello. The carriage was half empty. I moved my coat. He lowered the case into the seat by the window, fastened the belt across it with great care, and remained standing in the aisle all the way to Vienna. Somewhere after Linz I offered him my own seat. "Very kind," he said, "but she gets nervous if I'm not at eye level.")t",
                    R"t(True or false?
- All prime numbers are odd. False: 2 is prime and even.
- A square is a rectangle. True.
- If it rains, the street gets wet; the street is wet; therefore it has rained. False: the street may be wet for another reason.
- Half of all people are of below-average height. Not necessarily: half are below the median.
- 0.999… equals 1. True.)t",
                    R"t(BUG #4821: Export hangs when a project name contains an emoji
Steps to reproduce: 1) Create a project named "Roadmap 🚀". 2) Choose File > Export > PDF. 3) Wait.
Expected: the PDF is written. Actual: the progress bar stops at 87% and one core is busy until the program is killed.
Notes: "Roadmap" without the rocket works; so do "Röadmap" and "路线图". Seems related to characters outside the basic multilingual plane (two UTF-16 units). Regression since 5.3.0. Severity: medium 😕. Workaround: rename, export, rename back.)t",
                    R"t(Sourdough starters, sauerkraut, miso, yoghurt: fermented foods are conversations with microbes, held in a language of temperature, salt and time. At 2 to 3 percent salt, harmful bacteria fall silent while lactic acid bacteria carry on; within days the cabbage is sour enough to keep for months. What the cook controls is not the microbes but their surroundings. The oldest recipes understood this long before anyone had seen a bacterium.)t",
                    R"t(Chapter 1
The letter arrived on a Tuesday, which was the first odd thing about it, because nothing in Pell ever arrived on a Tuesday. The second odd thing was the stamp. It showed a mountain that Agnes knew very well, since she could see it from her kitchen, but on the stamp there was a house at the top with smoke rising from its chimney. Agnes put the letter against the teapot and looked out of the window for a long time. The mountain looked back. There was no house. There was, however, now that she came to think of it, smoke.)t",
                    R"t(Given the following data, answer the questions.
Region: North, units sold: 1,204, returned: 37
Region: South, units sold: 986, returned: 41
Region: East, units sold: 1,455, returned: 29
Region: West, units sold: 731, returned: 30
Q1. Which region has the lowest rate of returns? East: 29 / 1455 ≈ 2.0%.
Q2. How many units were sold in total? 1204 + 986 + 1455 + 731 = 4376.
Q3. Which has the highest rate? South: 41 / 986 ≈ 4.2%, just ahead of West with 30 / 731 ≈ 4.1%.)t",
                    R"t(Please be advised that the lifts in Block C will be out of service on Thursday between 9 a.m. and 1 p.m. for the annual inspection. Residents who depend on the lift are asked to contact the caretaker's office in advance; a stair-climbing chair and a helper can be arranged. Parcels will be held at reception. We apologise for any inconvenience. — The Management)t",
                    R"t(Sleep is not a switch but a sequence. A night has four to six cycles of about ninety minutes. Early cycles are rich in deep sleep, in which slow waves sweep across the cortex, growth hormone is released and the brain's waste is cleared. Later cycles have more REM sleep, with quick eye movements, vivid dreams and paralysed muscles. Someone who sleeps six hours rather than eight loses a quarter of the time but far more than a quarter of the REM. Alcohol makes falling asleep easier and the second half of the night worse.)t",
                    R"t(So here's the thing about my neighbour's drone: I don't mind the noise, I mind the waving. He flies it past my balcony every Sunday at nine, makes it wobble left and right like a tipsy wasp, and waits. I've tried ignoring it. I've tried waving back. Last week I held up a sign that said COFFEE? and ten minutes later he was at my door with a cake. We've known each other for eleven years. It turns out he's shy.)t",
                    R"t(Write a haiku about the first snow.

The street holds its breath.
A child at the dark window
draws one white circle.

Write a two-line rhyme about a spider.

She spins all night a house of thread and air,
and dines at dawn on guests who didn't care.)t",
                    R"t(Sure! Here is a simple weekly study plan: Monday and Thursday, 45 minutes of vocabulary (20 new words, 40 old ones); Tuesday, one chapter of a graded reader, aloud; Wednesday, a lesson with the tutor; Friday, write 120 words about your week and have them corrected; Saturday, a film with subtitles in the same language; Sunday, nothing at all. Keep a list of mistakes that you make more than twice. After four weeks, look at the list, not at the calendar, to see how far you have come.)t",
                    R"t(Notes from a beekeeper, June. Three hives inspected between eleven and noon, 24 °C, no wind. Hive A: queen seen, eight frames of brood, calm. Hive B: no eggs, two capped queen cells on frame 5; they have swarmed or are about to, so I left one cell and closed up. Hive C: strong, honey in both supers, gave a third. One sting (left thumb, my own fault). The lime trees by the church are in flower, and in the evening you can hear the whole avenue hum.)t",
};

}  // namespace

std::span<const std::string_view> builtin_english() {
  return kTexts;
}

}  // namespace llmq::convert
