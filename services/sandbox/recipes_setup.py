"""Setup tables of a site: places, people, boards and what hangs on them. Small, seldom changed, referred to by all.

Field names and types: the vendor's description 2026.4 (schemas Location, Department, WorkRole, WorkType, Member, Board,
BoardStatus, BoardType, Priority, Source, ServiceTeam, ProjectStatus).
"""

from services.sandbox import words
from services.sandbox.draws import (
    choice,
    custom,
    day,
    decimal,
    each,
    entered,
    fixed,
    flag,
    keyed,
    listed,
    maybe,
    optional,
    ref,
    setup,
    shape,
    text,
    whole,
)
from services.sandbox.recipe import Draft, Field, Recipe

COUNTRY = keyed("company/countries", "country", ("US", "United States"), ("DE", "Germany"), ("JP", "日本"))
TIME_ZONE = setup("system/timeZoneSetups", "timeZoneSetup", "US Eastern", "GMT Standard Time", "Tokyo")
CALENDAR = setup("schedule/calendars", "calendar", "Standard 8-5", "24x7")
BILLABLE = ("Billable", "DoNotBill", "NoCharge", "NoDefault")
PERSON = {"id": ("id",), "identifier": ("identifier",), "name": ("firstName", "lastName")}


def _closes(draft: Draft) -> bool:
    return str(draft.record["name"]).startswith(("Closed", "Completed"))


CLOSES = Field("flag", _closes)

LOCATIONS = Recipe(
    path="system/locations",
    noun="Location",
    href="location",
    fields={
        "ownerLevelId": whole(1, 9),
        "structureLevel": setup("system/myCompany/structures", "structureLevel", "Corporate", "Region", "Branch"),
        "name": listed("Tampa Office", "Büro München", "大阪支店", "Remote"),
        "salesRep": optional(text(words.first_name)),
        "timeZoneSetup": TIME_ZONE,
        "calendar": maybe(CALENDAR),
        "overrideCity": maybe(text(words.city)),
        "overridePhoneNumber": maybe(text(words.digits, empty=0.3)),
        "overrideCountry": maybe(COUNTRY),
        "locationFlag": fixed(True),
        "clientFlag": flag(0.2),
    },
    moving=(("overrideCity",), ("overridePhoneNumber",), ("calendar",)),
)

DEPARTMENTS = Recipe(
    path="system/departments",
    noun="Department",
    href="department",
    fields={
        "identifier": text(words.identifier),
        "name": listed("Service", "Projects", "Sales & Marketing", "Büro"),
    },
    named_by={"id": ("id",), "identifier": ("identifier",), "name": ("name",)},
    moving=(("identifier",),),
)

WORK_ROLES = Recipe(
    path="time/workRoles",
    noun="WorkRole",
    href="workRole",
    fields={
        "name": listed("Engineer", "Senior Engineer", "Project Manager", "Intern"),
        "hourlyRate": decimal(50, 250),
        "integrationXref": optional(text(words.identifier, empty=0.5)),
        "inactiveFlag": flag(0.1),
        "addAllLocations": flag(0.5),
    },
    moving=(("hourlyRate",), ("inactiveFlag",)),
)

WORK_TYPES = Recipe(
    path="time/workTypes",
    noun="WorkType",
    href="workType",
    fields={
        "name": listed("Remote", "On-site", "After hours", "PTO"),
        "billTime": choice("Billable", "DoNotBill", "NoCharge"),
        "rateType": choice("AdjAmount", "Custom", "Multiplier"),
        "rate": decimal(0, 3),
        "hoursMin": maybe(decimal(0, 1)),
        "hoursMax": maybe(decimal(8, 24)),
        "roundBillHoursTo": decimal(0, 1),
        "accrualType": maybe(choice("Holiday", "PTO", "Sick", "Vacation")),
        "inactiveFlag": flag(0.1),
        "overallDefaultFlag": flag(0.1),
        "utilizationFlag": flag(0.7),
        "costMultiplier": decimal(1, 2),
    },
    moving=(("rate",), ("inactiveFlag",), ("costMultiplier",)),
)

MEMBERS = Recipe(
    path="system/members",
    noun="Member",
    href="member",
    fields={
        "identifier": text(words.identifier),
        "disableOnlineFlag": flag(0.1),
        "licenseClass": choice("A", "C", "F", "X"),
        "notes": maybe(text(words.paragraph, empty=0.3)),
        "employeeIdentifer": optional(text(words.identifier)),  # spelled like this by the vendor
        "inactiveFlag": flag(0.1),
        "lastLogin": optional(entered()),
        "firstName": text(words.first_name),
        "middleInitial": optional(choice("A", "Ø", "Z")),
        "lastName": text(words.last_name),
        "hireDate": day(-2000, 0),
        "country": maybe(COUNTRY),
        "officeEmail": text(words.email),
        "defaultEmail": choice("Office", "Mobile", "Home"),
        "primaryEmail": text(words.email),
        "officePhone": maybe(text(words.digits, empty=0.2)),
        "defaultPhone": choice("Office", "Mobile", "Home"),
        "securityRole": setup("system/securityRoles", "securityRole", "Admin", "Technician", "API"),
        "title": maybe(choice("Engineer", "Geschäftsführerin", "Tech 👩‍🔧")),
        "type": maybe(setup("system/members/types", "type", "Employee", "Contractor")),
        "timeZone": TIME_ZONE,
        "adminFlag": flag(0.2),
        "structureLevel": setup("system/myCompany/structures", "structureLevel", "Corporate", "Region"),
        "defaultLocation": ref("system/locations"),
        "defaultDepartment": ref("system/departments"),
        "reportsTo": maybe(ref("system/members"), absent=0.4),
        "workRole": ref("time/workRoles"),
        "workType": ref("time/workTypes"),
        "billableForecast": decimal(0, 100),
        "dailyCapacity": decimal(4, 8),
        "hourlyCost": decimal(20, 90),
        "hourlyRate": maybe(decimal(90, 250)),
        "daysTolerance": whole(0, 10),
        "minimumHours": decimal(0, 8),
        "timeSheetStartDate": optional(day(-400, 0)),
        "teams": shape("list", lambda draft: [draft.rng.randint(1, 9) for _ in range(draft.rng.randrange(4))]),
        "customFields": custom((1, "Badge", "Text", "EntryField", 0, words.serial_number)),
    },
    named_by=PERSON,
    moving=(("title",), ("hourlyCost",), ("inactiveFlag",), ("notes",), ("defaultLocation",)),
    churn=2,
)

BOARDS = Recipe(
    path="service/boards",
    noun="Board",
    href="board",
    fields={
        "name": listed("Help Desk", "NOC", "Projekte", "Alerts 🚨"),
        "location": ref("system/locations"),
        "department": ref("system/departments"),
        "inactiveFlag": flag(0.05),
        "sendToContactFlag": flag(),
        "projectFlag": flag(0.3),
        "dispatchMember": maybe(ref("system/members")),
        "workRole": ref("time/workRoles"),
        "workType": ref("time/workTypes"),
        "billTime": choice(*BILLABLE),
        "billExpense": choice(*BILLABLE),
        "billProduct": choice(*BILLABLE),
        "notifyEmailFrom": maybe(text(words.email, empty=0.2)),
        "problemSort": choice("Ascending", "Descending"),
        "emailConnectorReopenDaysLimit": maybe(whole(0, 30)),
        "percentageCalculation": choice("ActualHours", "Manual", "ClosedPhases", "ClosedTickets"),
    },
    moving=(("dispatchMember",), ("notifyEmailFrom",), ("inactiveFlag",)),
)

BOARD_STATUSES = Recipe(
    path="service/boards/{id}/statuses",
    noun="BoardStatus",
    href="status",
    fields={
        "name": listed("New", "In Progress", "Waiting ⏳", "Completed", "Closed"),
        "board": each("service/boards"),
        "sortOrder": whole(0, 90),
        "displayOnBoard": flag(0.9),
        "inactive": flag(0.05),
        "closedStatus": CLOSES,
        "timeEntryNotAllowed": flag(0.1),
        "defaultFlag": flag(0.1),
        "escalationStatus": choice("NotResponded", "Responded", "ResolutionPlan", "Resolved", "NoEscalation"),
        "customerPortalDescription": maybe(text(words.paragraph)),
        "customerPortalFlag": flag(),
    },
    named_by={"id": ("id",), "name": ("name",), "sort": ("sortOrder",)},
    owner="board",
    moving=(("sortOrder",), ("customerPortalDescription",)),
)

BOARD_TYPES = Recipe(
    path="service/boards/{id}/types",
    noun="BoardType",
    href="type",
    fields={
        "name": listed("Break/fix", "Änderung", "Question", "Alert"),
        "category": maybe(choice("Reactive", "Proactive")),
        "defaultFlag": flag(0.1),
        "inactiveFlag": flag(0.05),
        "requestForChangeFlag": flag(0.2),
        "integrationXref": optional(text(words.identifier, empty=0.4)),
        "board": each("service/boards"),
        "location": maybe(ref("system/locations")),
        "department": maybe(ref("system/departments")),
    },
    owner="board",
    moving=(("category",), ("inactiveFlag",)),
)

PRIORITIES = Recipe(
    path="service/priorities",
    noun="Priority",
    href="priority",
    fields={
        "name": listed("Priority 1 - Critical", "Priority 2 - High", "Priority 3 - Medium", "Priority 4 - Low"),
        "color": choice("Red", "Orange", "Yellow", "White"),
        "sortOrder": whole(1, 9),
        "defaultFlag": flag(0.2),
        "imageLink": text(lambda rng: f"{words.website(rng)}&img=1"),
        "urgencySortOrder": choice("1", "02", ""),
        "level": maybe(choice("Critical", "High", "Medium", "Low")),
    },
    named_by={"id": ("id",), "name": ("name",), "sort": ("sortOrder",), "level": ("level",)},
    moving=(("color",), ("sortOrder",)),
)

SOURCES = Recipe(
    path="service/sources",
    noun="Source",
    href="source",
    fields={
        "name": listed("Phone", "E-mail", "Portal", "RMM"),
        "defaultFlag": flag(0.2),
        "enteredBy": text(words.identifier),
        "dateEntered": entered(),
    },
    moving=(("defaultFlag",),),
)

TEAMS = Recipe(
    path="service/teams",
    noun="ServiceTeam",
    href="team",
    fields={
        "name": listed("Tier 1", "Tier 2", "Équipe Nuit"),
        "leader": ref("system/members"),
        "location": ref("system/locations"),
        "department": ref("system/departments"),
        "deleteNotifyFlag": flag(0.2),
    },
    moving=(("leader",),),
)

PROJECT_STATUSES = Recipe(
    path="project/statuses",
    noun="ProjectStatus",
    href="status",
    fields={
        "name": listed("Open", "On hold", "Closed"),
        "defaultFlag": flag(0.2),
        "inactiveFlag": flag(0.1),
        "noTimeFlag": flag(0.1),
        "closedFlag": CLOSES,
        "customStatusIndicatorName": maybe(text(words.identifier, empty=0.5)),
    },
    moving=(("customStatusIndicatorName",),),
)

SETUP = (
    LOCATIONS,
    DEPARTMENTS,
    WORK_ROLES,
    WORK_TYPES,
    MEMBERS,
    BOARDS,
    BOARD_STATUSES,
    BOARD_TYPES,
    PRIORITIES,
    SOURCES,
    TEAMS,
    PROJECT_STATUSES,
)
